#!/usr/bin/env bash
# Builds everything and runs every test.
#   ./tests/run.sh                 all of them, through ctest; more arguments go to ctest (-R fit, -V)
#   ./tests/run.sh --fast          leaves out the tests tagged [slow]
#   ./tests/run.sh --soak [SHARE]  faults on purpose as often as before a release, or this share of it; hours
set -euo pipefail
cd "$(dirname "$0")/.."

./setup.sh
cmake --preset release >/dev/null
cmake --build --preset release

if [ "${1:-}" = --fast ]; then
  export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
  ./tests/includes_test.sh
  ./build/release/bin/tuneonce_tests '~[slow]'
  exec ./build/release/bin/tuneonce_worker_tests '~[slow]'
fi
if [ "${1:-}" = --soak ]; then
  export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TUNEONCE_SOAK="${2:-1}"
  ./build/release/bin/tuneonce_tests '[faults]'
  exec ./build/release/bin/tuneonce_worker_tests '[faults]'
fi
./tests/python_env.sh torch >/dev/null  # examples/own_trainer
exec ctest --preset release -j"$(nproc)" "$@"
