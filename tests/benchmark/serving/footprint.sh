#!/usr/bin/env bash
# Start-up time and memory of the server, with their bars: SmolLM2 in bf16 serves within 3 s of its start, and after a run of
# 32 requests at a time over four LoRA adapters and the base it holds less than weights + KV cache + 400 MB.
#
#   tests/benchmark/serving/footprint.sh        exits with 1 when a bar is missed
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
bin=$root/build/release/bin
model=$("$root/deploy/quickstart/fetch_model.sh")
kv_bytes=$((256 << 20))
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

"$bin/tenon-server" --model="$model" --dtype=bf16 --store="$work/store" --listen="unix:$work/tenon.sock" \
  --http-listen=127.0.0.1:0 --kv-cache-bytes="$kv_bytes" >"$work/log" 2>&1 &
server=$!
until grep -q ' ready: ' "$work/log"; do
  kill -0 "$server" || { cat "$work/log" >&2; exit 1; }
  sleep 0.02
done
start_s=$(sed -n 's/.* ready: .* after \([0-9.]*\) s$/\1/p' "$work/log")
idle_kb=$(awk '/VmRSS/ {print $2}' "/proc/$server/status")

names=
for name in date-normalize json-extract pirate-tone ticket-router; do
  "$bin/tenonctl" --server="unix:$work/tenon.sock" adapters upload "$name" "$root/deploy/demo/adapters/$name" >/dev/null
  names+=${names:+,}$name
done
"$bin/serving_benchmark" --server="unix:$work/tenon.sock" --adapters="$names" --base_share=0.2 --requests=128 \
  --concurrency=32
peak_kb=$(awk '/VmHWM/ {print $2}' "/proc/$server/status")

weights_mb=$(($(stat -Lc %s "$model/model.safetensors") / 1000000))
limit_mb=$((weights_mb + kv_bytes / 1000000 + 400))
echo "  start to serving   $start_s s   (bar 3 s)"
echo "  resident, idle     $((idle_kb * 1024 / 1000000)) MB"
echo "  resident, peak     $((peak_kb * 1024 / 1000000)) MB   (bar: weights $weights_mb + KV $((kv_bytes / 1000000)) + 400 = $limit_mb MB)"
awk -v s="$start_s" -v peak="$((peak_kb * 1024 / 1000000))" -v limit="$limit_mb" 'BEGIN {exit !(s < 3 && peak < limit)}'
