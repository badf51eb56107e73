#!/usr/bin/env bash
# What a person reads, at 10,000 trials with 100 curve points each: the quickest and the median of 20, process start
# included. Goals: results --format csv 1 s, best 50 ms.
#   tests/bench/read.sh [BUILD FOLDER]      (needs the sqlite3 shell; built with the tests: it uses their fake worker)
set -euo pipefail
here=$(realpath "$(dirname "$0")")
. "$here/random_study.sh"
bin=$(realpath "${1:-$here/../../build/release}")/bin
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export TUNEONCE_WORKER=$bin/fake_worker

random_study large 15 > study.toml
"$bin/tuneonce" -q run study.toml -j 2 > run.out 2> run.err || true
sqlite3 large.db 'DELETE FROM curve_chunk; DELETE FROM attempt; DELETE FROM censored; DELETE FROM event;
  DELETE FROM trial WHERE id > 1; UPDATE trial SET role = 1'
sqlite3 large.db < "$here/../support/ten_thousand_trials.sql"
echo "trials: $(sqlite3 large.db 'SELECT count(*) FROM trial'), curve points: $(sqlite3 large.db \
  'SELECT sum(json_array_length(steps)) FROM curve_chunk'), file: $(($(stat -c %s large.db) / 1048576)) MiB"

measure() {
  local times=()
  for _ in $(seq 20); do
    local start end
    start=$(date +%s%N)
    "$bin/tuneonce" "$@" > out
    end=$(date +%s%N)
    times+=($(((end - start) / 10000)))
  done
  mapfile -t times < <(printf '%s\n' "${times[@]}" | sort -n)
  printf '%-28s %4d.%02d ms quickest, %4d.%02d ms median\n' "$*" $((times[0] / 100)) $((times[0] % 100)) \
    $((times[10] / 100)) $((times[10] % 100))
}
measure --version
measure best
measure results --format csv
measure results --format json
measure status
measure watch --once
