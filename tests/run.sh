#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. The last line is `N passed, N failed, N skipped` over all suites.
#
#   tests/run.sh               everything
#   tests/run.sh -R engine     only the suites whose name matches, without the sanitizer builds
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

deploy/install_deps.sh --tests
TENON_TEST_MODEL=$(deploy/quickstart/fetch_model.sh)
export TENON_TEST_MODEL

results=$root/build/test-results
rm -rf "$results"
mkdir -p "$results"
status=0

# run_suites <preset> [ctest arguments]: builds are done; each GoogleTest binary leaves its own XML report.
run_suites() {
  local preset=$1
  shift
  GTEST_OUTPUT=xml:$results/$preset/ ctest --preset "$preset" --output-junit "$results/$preset.junit.xml" "$@" || status=1
}

jobs=$(nproc)
if [ $# = 0 ]; then
  tests/gpu/build_kernels.sh "$jobs"
fi
cmake --preset release -DTENON_BUILD_TESTS=ON >/dev/null
ninja -C build/release -j "$jobs"
run_suites release "$@"

if [ $# = 0 ]; then
  # The folders without torch hold the hard concurrency and the parsers of untrusted bytes: those run sanitized.
  for preset in asan tsan; do
    cmake --preset "$preset" >/dev/null
    ninja -C "build/$preset" -j "$jobs" "tenon_${preset}_tests"
    run_suites "$preset" -L "$preset"
  done
fi

python3 tests/summarize.py "$results" || status=1
exit $status
