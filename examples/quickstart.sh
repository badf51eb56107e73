#!/usr/bin/env bash
# Sets everything up, builds, and runs the main job on a small built-in data source: a dense proxy is tuned,
# its optimum transferred to two MoE targets, and one of them checked for drift. Run it again to go on after
# an interruption, or to see the result again; `./examples/quickstart.sh -j 1` uses one core.
set -euo pipefail
cd "$(dirname "$0")/.."

./setup.sh
cmake --preset release -DTUNEONCE_TESTS=OFF >/dev/null
cmake --build --preset release
exec ./build/release/bin/tuneonce run examples/quickstart/study.toml \
  --db quickstart.db --report quickstart.html "$@"
