#!/usr/bin/env bash
# Installs nvcc 13.0 from PyPI into $TENON_CACHE_DIR/cuda-13.0 (340 MB), for cmake -DTENON_CUDA=ON. It needs neither a
# GPU nor NVIDIA's packages. A second run finds everything in place, changes nothing and needs no network.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
target=${TENON_CACHE_DIR:-$HOME/.cache/tenon}/cuda-13.0
requirements=$root/deploy/requirements/cuda.txt
cmp -s "$requirements" "$target/.complete" && exit  # what was installed, by the list of then

echo "installing nvcc 13.0 into $target"
rm -rf "$target.partial" "$target"
mkdir -p "$target.partial"
python3 -m pip install --quiet --no-deps --require-hashes --only-binary=:all: --disable-pip-version-check \
  --root-user-action=ignore --python-version 3.11 --implementation cp \
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  --target "$target.partial" -r "$requirements"
# The wheels have neither what nvcc.profile calls the folder nor the name that a linker looks for.
cu=$target.partial/nvidia/cu13
ln -s lib "$cu/lib64"
[ -e "$cu/lib/libcudart.so" ] || ln -s libcudart.so.13 "$cu/lib/libcudart.so"
cp "$requirements" "$target.partial/.complete"
mv "$target.partial" "$target"
