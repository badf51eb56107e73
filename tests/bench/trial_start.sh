#!/usr/bin/env bash
# What it costs to start a trial on a warm worker, over the training itself. The goal is at most 20 ms.
#
#   ./tests/bench/trial_start.sh [TRIALS [SPEC.json]]
#
# BUILD=DIR names the build folder (default build/bench).
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BUILD:-build/bench}
cmake -S . -B "$build" -G Ninja -DTUNEONCE_ORCHESTRATOR=OFF -DTUNEONCE_BENCH=ON >/dev/null
cmake --build "$build" --target bench_trial_start tuneonce-worker >&2
exec "$build/bin/bench_trial_start" "$build/bin/tuneonce-worker" "$@"
