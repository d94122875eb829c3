#!/usr/bin/env bash
# Fails on a source file that .clang-format would change, and shows the lines; `--fix` changes it.
set -euo pipefail
cd "$(dirname "$0")/.."
formatter=${TENON_CACHE_DIR:-$HOME/.cache/tenon}/venv-tests/bin/clang-format
mode=(--dry-run --Werror)
[ "${1:-}" = --fix ] && mode=(-i)
find adapters client server tests -name '*.cc' -o -name '*.h' -o -name '*.cu' | xargs "$formatter" "${mode[@]}"
