#!/usr/bin/env bash
# Proves the GPU side on a machine that has one, in under ten minutes: builds the worker and its tests, then
# trains the same trials on the GPU and on its CPU twin (float32 and bfloat16) and a stack of 8 slots against
# 8 solo runs. Needs a driver, cmake, a compiler and a full torch package (TORCH_ROOT=..., or python3 finds it);
# nothing of the orchestrator. Header-only libraries come from the system, or from a folder packed elsewhere:
#
#   ./tests/gpu.sh --pack headers     on a machine with Debian's packages: copies the three that are needed
#   HEADERS=headers ./tests/gpu.sh    on a GPU machine without them
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --pack ]; then
  folder=${2:?give the folder to pack the headers into}
  if [ -e /usr/include/catch2/catch_all.hpp ]; then
    echo "gpu.sh: Catch2 here is version 3, which is not header-only; pack on a system with version 2" >&2
    exit 2
  fi
  mkdir -p "$folder"
  cp -rL /usr/include/nlohmann /usr/include/xxhash.h /usr/include/catch2 "$folder"
  exit 0
fi

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || {
  echo "gpu.sh: no NVIDIA GPU here" >&2
  exit 6
}
root=${TORCH_ROOT:-$(python3 -c 'import os, torch; print(os.path.dirname(torch.__file__))')}
generator=("Unix Makefiles")
command -v ninja >/dev/null && generator=(Ninja)

cmake -S . -B build/gpu -G "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DTUNEONCE_ORCHESTRATOR=OFF \
  -DTUNEONCE_CUDA=ON -DTUNEONCE_WERROR=OFF -DTORCH_ROOT="$root" ${HEADERS:+-DCMAKE_INCLUDE_PATH="$(realpath "$HEADERS")"}
cmake --build build/gpu -j"$(nproc)" --target tuneonce-worker tuneonce_worker_tests
date -u +%F
export TUNEONCE_EXPECT_GPU=1
worst=0
./build/gpu/bin/tuneonce_worker_tests '[gpu]' --success --reporter compact || worst=$?
./build/gpu/bin/tuneonce_worker_tests '~[slow]~[gpu]' || {
  status=$?
  worst=$((status > worst ? status : worst))
}
exit "$worst"
