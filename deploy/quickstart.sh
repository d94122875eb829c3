#!/usr/bin/env bash
# From a fresh Debian 12 to answers of several adapters in one batch:
#
#   deploy/quickstart.sh           build, fetch the model, serve, upload the demo adapters, ask, stop
#   deploy/quickstart.sh --keep    the same, and leave the server running
#
# Idempotent: a second run finds everything in place and needs no network.
# TENON_QUICKSTART_LISTEN (default 127.0.0.1:50051) and TENON_QUICKSTART_HTTP (default 127.0.0.1:8080) choose addresses.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
keep=false
case "${1:-}" in
  --keep) keep=true ;;
  "") ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
listen=${TENON_QUICKSTART_LISTEN:-127.0.0.1:50051}
http=${TENON_QUICKSTART_HTTP:-127.0.0.1:8080}
state=${TENON_CACHE_DIR:-$HOME/.cache/tenon}/quickstart
bin=build/release/bin
step() { printf '\n== %s\n' "$*"; }

step "1/5 install what is missing"
deploy/install_deps.sh

step "2/5 build"
[ -e build/release/build.ninja ] || cmake --preset release -DTENON_BUILD_TESTS=OFF >/dev/null
ninja -C build/release tenon-server tenonctl mixed_batch

step "3/5 fetch and convert the model"
model=$(deploy/quickstart/fetch_model.sh)
echo "$model"

step "4/5 serve"
mkdir -p "$state"
log=$state/server.log
"$bin/tenon-server" --model="$model" --model-name=smollm2-135m-instruct --store="$state/store" \
  --listen="$listen" --http-listen="$http" >"$log" 2>&1 &
server=$!
stop() { kill -TERM "$server" 2>/dev/null && wait "$server" || true; }
trap stop EXIT
until grep -q '^tenon-server .* ready:' "$log"; do
  kill -0 "$server" 2>/dev/null || { echo "the server did not start:" >&2; cat "$log" >&2; exit 1; }
  sleep 0.1
done
grep '^tenon-server .* ready:' "$log"
for folder in deploy/demo/adapters/*/; do
  "$bin/tenonctl" --server="$listen" adapters upload "$(basename "$folder")" "$folder"
done
"$bin/tenonctl" --server="$listen" adapters list

step "5/5 ask: adapters of four families and the bare base, all in flight at once"
"$bin/mixed_batch" --server="$listen" --questions=deploy/demo/questions --per_adapter=3

cat <<EOF

Try next (grpcurl finds the services by reflection):
  grpcurl -plaintext $listen list
  grpcurl -plaintext -d '{"prompt": "The capital of France is", "stopping": {"max_tokens": 8}}' \\
    $listen tenon.v1.GenerationService/GenerateOnce
  grpcurl -plaintext -d '{}' $listen tenon.v1.AdapterService/ListAdapters
  $bin/tenonctl --server=$listen chat
  curl -s http://$http/metrics | grep ^tenon_
EOF

if $keep; then
  trap - EXIT
  disown "$server"
  printf '\nThe server goes on as process %s, log in %s. Stop it with: kill %s\n' "$server" "$log" "$server"
fi
