# Pinned Python environments below .cache/golden. To be sourced; needs root, sets cache.

cache=$root/.cache/golden

# make_environment NAME REQUIREMENTS makes .cache/golden/NAME, unless it is there. An interrupted
# run leaves no mark, so that the next one starts over.
make_environment() {
  if [[ -f $cache/$1/installed ]]; then return; fi
  mkdir -p "$cache"
  python3 -m venv --clear "$cache/$1"
  "$cache/$1/bin/python" -m pip install --require-hashes -r "$root/tests/golden/$2"
  touch "$cache/$1/installed"
}
