#!/usr/bin/env bash
# What the orchestrator costs per trial, beside Optuna and Ray Tune on the same machine in the same run: no-op
# trials through storage and workers, trials of 1 s, curve points, memory, restart. Prints medians and ratios;
# every single run goes to stderr. README.md in this folder says what came out.
#
#   ./tests/bench/scheduler.sh [REPEATS]      about 10 minutes at 3 repeats, the default, on an idle machine
#
# BUILD=DIR names the build folder (default build/bench), FOLDER=DIR where the databases lie (default: beside it).
set -euo pipefail
cd "$(dirname "$0")/../.."
. ./tests/bench/random_study.sh
root=$PWD
repeats=${1:-3}
build=$(realpath -m "${BUILD:-build/bench}")
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DTUNEONCE_WORKER=OFF -DTUNEONCE_BENCH=ON >/dev/null
cmake --build "$build" --target bench_scheduler fake_worker tuneonce >&2
optuna=$(./tests/python_env.sh optuna)
ray=$(./tests/python_env.sh ray)

folder=$(mktemp -d "${FOLDER:-$build}/scheduler.XXXXXX")
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export PYTHONWARNINGS=ignore RAY_DISABLE_IMPORT_WARNING=1
export TUNEONCE_WORKER=$build/bin/fake_worker

# run NAME COMMAND...: one line of key=value from the command, kept under the name.
run() {
  local name=$1 line
  shift
  line=$("$@" 2>"$folder/err" | tail -1) || { cat "$folder/err" >&2; exit 1; }
  echo "$name $line load=$(cut -d' ' -f1 /proc/loadavg)" | tee -a results >&2
}
bench() { "$build/bin/bench_scheduler" "$TUNEONCE_WORKER" "$@"; }

# A run is killed in the middle with all of its workers; from the same command to the next trial's start.
restart() {
  random_study restart 1000 > study.toml
  rm -rf restart.db*
  TUNEONCE_FAKE=sleep_ms=10 "$build/bin/tuneonce" -q run study.toml -j 2 >/dev/null 2>&1 &
  until_attempts 100
  kill -9 $!
  wait $! 2>/dev/null || true
  local before now started
  before=$(attempts)
  now=$(date +%s%N)
  TUNEONCE_FAKE=sleep_ms=10 "$build/bin/tuneonce" -q run study.toml -j 2 >/dev/null 2>&1 &
  until_attempts $((before + 1))
  kill -9 $!
  wait $! 2>/dev/null || true
  started=$("$build/bin/tuneonce" query --db restart.db --format csv \
    "SELECT started FROM attempt ORDER BY started LIMIT 1 OFFSET $before" | tail -1 | tr -d '"')
  echo "attempts_before=$before ms=$((($(date -u -d "$started" +%s%N) - now) / 1000000))"
}
attempts() {
  "$build/bin/tuneonce" query --db restart.db --format csv "SELECT count(*) FROM attempt" 2>/dev/null | tail -1
}
until_attempts() { until [ "$(attempts)" -ge "$1" ] 2>/dev/null; do sleep 0.1; done; }

for _ in $(seq "$repeats"); do
  run ours bench warm 10000
  run optuna-sqlite "$optuna" "$root/tests/bench/optuna_noop.py" sqlite 300
  run ray "$ray" "$root/tests/bench/ray_noop.py" 200
  run ours-normal bench normal 10000
  run optuna-journal "$optuna" "$root/tests/bench/optuna_noop.py" journal 1000
  run ours-process bench process 1000
  run optuna-memory "$optuna" "$root/tests/bench/optuna_noop.py" memory 5000
  run points bench points 5
  run restart restart
  run ours-100000 bench warm 100000
done
run ours-sleep bench sleep 200
run ray-sleep "$ray" "$root/tests/bench/ray_noop.py" 200 1

echo
echo "$(nproc) cores, $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs), Linux $(uname -r)"
echo "Optuna $("$optuna" -c 'import optuna; print(optuna.__version__)'), Ray $("$ray" -c 'import ray; print(ray.__version__)')"
awk '
  function value(key,  i) { for (i = 2; i <= NF; ++i) if (index($i, key "=") == 1) return substr($i, length(key) + 2); return "" }
  function add(name, key,  v) { v = value(key); if (v != "") { n[name, key]++; all[name, key, n[name, key]] = v + 0 } }
  function median(name, key,  c, i, j, t, a) {
    c = n[name, key]; if (!c) return 0
    for (i = 1; i <= c; ++i) a[i] = all[name, key, i]
    for (i = 2; i <= c; ++i) for (j = i; j > 1 && a[j] < a[j - 1]; --j) { t = a[j]; a[j] = a[j - 1]; a[j - 1] = t }
    return c % 2 ? a[(c + 1) / 2] : (a[c / 2] + a[c / 2 + 1]) / 2
  }
  { add($1, "trials_per_s"); add($1, "seconds"); add($1, "points_per_s"); add($1, "ms"); add($1, "cpu_us_per_trial"); add($1, "peak_mb");
    add($1, "bytes_per_trial"); add($1, "last_over_first_thousand"); add($1, "cpu_last_over_first") }
  END {
    split("ours ours-normal ours-process optuna-sqlite optuna-journal optuna-memory ray", names, " ")
    for (i = 1; i in names; ++i) {
      rate = median(names[i], "trials_per_s")
      cpu = median(names[i], "cpu_us_per_trial")
      printf "%-16s %8.1f trials/s   ours, durable: x%.1f%s\n", names[i], rate, median("ours", "trials_per_s") / rate,
        cpu ? sprintf("   %8.0f us of CPU a trial, ours x1/%.1f", cpu, cpu / median("ours", "cpu_us_per_trial")) : ""
    }
    printf "points           %8.0f points/s\n", median("points", "points_per_s")
    printf "restart          %8.0f ms to the next trial\n", median("restart", "ms")
    printf "100,000 trials   last thousand over first %.2f, by CPU time %.2f; peak %.1f MB, %d bytes per finished trial\n",
      median("ours-100000", "last_over_first_thousand"), median("ours-100000", "cpu_last_over_first"), median("ours-100000", "peak_mb"), median("ours-100000", "bytes_per_trial")
    printf "200 trials of 1 s, two wide: %.2f %% over 100 s; Ray Tune %.2f %%\n",
      median("ours-sleep", "seconds") - 100, median("ray-sleep", "seconds") - 100
  }' results
