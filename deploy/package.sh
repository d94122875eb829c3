#!/usr/bin/env bash
# Builds Release and installs it, with the LibTorch libraries it needs, into a folder that can be moved as a whole:
#
#   deploy/package.sh /opt/tenon
#
# What stays outside is the C++ run-time libraries that the Dockerfile's second stage names.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
prefix=${1:?usage: deploy/package.sh PREFIX}
cd "$root"

# With a build folder at hand (tests built or not) it is used as it is.
[ -e build/release/build.ninja ] || cmake --preset release -DTENON_BUILD_TESTS=OFF >/dev/null
ninja -C build/release tenon-server tenonctl
cmake --install build/release --prefix "$prefix" --strip >/dev/null

missing=$(ldd "$prefix/bin/tenon-server" "$prefix/bin/tenonctl" | grep 'not found' || true)
if [ -n "$missing" ]; then
  echo "the package lacks libraries: $missing" >&2
  exit 1
fi
echo "installed into $prefix ($(du -sh "$prefix" | cut -f1))"
