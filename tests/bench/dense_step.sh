#!/usr/bin/env bash
# The dense proxy's step against PyTorch eager, both in one run, taking turns on one thread.
#
#   PYTHON=/path/to/python ./tests/bench/dense_step.sh [REPEATS [STEPS]]
#
# Needs: a Python with torch 2.11.0 and numpy (python3 -m venv v && v/bin/pip install torch==2.11.0 numpy; the
# wheel in .deps is installed without its dependencies and does not do), and what ./setup.sh installs.
# BUILD=DIR names the build folder (default build/bench).
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
build=${BUILD:-build/bench}
version=$("$python" -c 'import torch; print(torch.__version__)' 2>/dev/null) || {
  echo "dense_step: $python cannot import torch; give PYTHON=... of an environment with torch 2.11.0" >&2
  exit 2
}
[[ $version == 2.11.0* ]] || echo "dense_step: comparing with torch $version, not 2.11.0" >&2
cmake -S . -B "$build" -G Ninja -DTUNEONCE_ORCHESTRATOR=OFF -DTUNEONCE_BENCH=ON >/dev/null
cmake --build "$build" --target bench_dense_step >&2
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
exec "$python" tests/bench/dense_step.py "$build/bin/bench_dense_step" "$@"
