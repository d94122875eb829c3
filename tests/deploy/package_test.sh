#!/usr/bin/env bash
# The installed tree runs by itself: deploy/package.sh into a fresh folder, that folder moved, then the server started
# from it with an empty environment and asked for a completion by the tenonctl beside it.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

"$root/deploy/package.sh" "$work/built"
mv "$work/built" "$work/moved"
if readelf -d "$work/moved/bin/tenon-server" | grep -E 'R(UN)?PATH' | grep -v '\$ORIGIN' ; then
  echo "the installed binary looks for libraries outside its own tree" >&2
  exit 1
fi

env -i PATH=/usr/bin:/bin "$work/moved/bin/tenon-server" --model="$root/tests/golden/data/tiny-llama/model" \
  --store="$work/store" --listen="unix:$work/tenon.sock" --http-listen=127.0.0.1:0 >"$work/log" 2>&1 &
server=$!
for _ in $(seq 100); do
  grep -q ' ready:' "$work/log" && break
  kill -0 "$server" || { cat "$work/log" >&2; exit 1; }
  sleep 0.1
done
env -i PATH=/usr/bin:/bin "$work/moved/bin/tenonctl" --server="unix:$work/tenon.sock" generate --max-tokens=4 --json "a" \
  | grep '"finish' || { cat "$work/log" >&2; exit 1; }
kill -TERM "$server"
wait "$server"
server=
