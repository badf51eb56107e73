#!/usr/bin/env bash
# `tuneonce status` on a database of 1,000 trials, the orchestrator's peak memory while it makes that database,
# and what it costs per trial that needs no training. Goals: 20 ms, 30 MB.
#   tests/bench/status.sh [BUILD FOLDER]      (built with the tests: it uses their fake worker)
set -euo pipefail
here=$(realpath "$(dirname "$0")")
. "$here/random_study.sh"
bin=$(realpath "${1:-$here/../../build/release}")/bin
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export TUNEONCE_WORKER=$bin/fake_worker

random_study thousand 1000 > study.toml

start=$(date +%s%N)
"$bin/tuneonce" -q run study.toml -j 2 > run.out 2> run.err &
pid=$!
peak=0
while kill -0 $pid 2>/dev/null; do
  peak=$(awk '/VmHWM/ {print $2}' /proc/$pid/status 2>/dev/null || true)
  [ -n "$peak" ] && last=$peak
  sleep 0.05
done
wait $pid || true
end=$(date +%s%N)
trials=$("$bin/tuneonce" query 'SELECT count(*) AS n FROM trial' --format csv | tail -1)
echo "trials: $trials, $(((end - start) / 1000 / trials)) us each with 2 fake workers"
echo "orchestrator, peak memory: $((last / 1024)) MB"

best=
for _ in $(seq 20); do
  start=$(date +%s%N)
  "$bin/tuneonce" status > status.out
  end=$(date +%s%N)
  ms=$(((end - start) / 100000))
  if [ -z "$best" ] || [ "$ms" -lt "$best" ]; then best=$ms; fi
done
echo "status: $((best / 10)).$((best % 10)) ms, the best of 20"
