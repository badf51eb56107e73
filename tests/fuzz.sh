#!/usr/bin/env bash
# Throws generated input at everything that reads bytes from outside (frames, study files, checkpoints, token
# files), two readers at a time. Needs clang with libFuzzer; says so and does nothing where there is none.
#   ./tests/fuzz.sh [SECONDS]      for each reader; default 60
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}

printf 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' >/tmp/probe-$$.cpp
if ! clang++ -fsanitize=fuzzer /tmp/probe-$$.cpp -o /tmp/probe-$$ 2>/dev/null; then
  rm -f /tmp/probe-$$*
  echo "fuzz: no clang with libFuzzer (clang, libclang-rt-dev); nothing was run"
  exit 0
fi
rm -f /tmp/probe-$$*

cmake --preset fuzz >/dev/null
readers=(frames study safetensors tokens)
cmake --build --preset fuzz --target "${readers[@]/#/fuzz_}"

folder=build/fuzz/corpus
mkdir -p "$folder"/{frames,study,safetensors,tokens}
cp examples/*/*.toml "$folder/study/" 2>/dev/null || true
run() {
  build/fuzz/bin/fuzz_"$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$folder/$1-" "$folder/$1" >"$folder/$1.log" 2>&1 || {
    tail -40 "$folder/$1.log"
    echo "fuzz: $1 fails; the input is beside $folder/$1.log"
    return 1
  }
  echo "fuzz: $1: $(awk '/number_of_executed_units/ { print $2 }' "$folder/$1.log") inputs, none did harm"
}
pids=()
for pair in "frames study" "safetensors tokens"; do
  for reader in $pair; do
    run "$reader" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid"; done
  pids=()
done
