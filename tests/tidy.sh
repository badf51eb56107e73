#!/usr/bin/env bash
# clang-tidy with the checks of .clang-tidy over every room but LibTorch's; findings are errors.
#   ./tests/tidy.sh [FILE ...]     default: all
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang-tidy >/dev/null || {
  echo "tidy: clang-tidy is not installed; nothing was looked at"
  exit 0
}
cmake --preset fuzz >/dev/null
files=("$@")
[ "${#files[@]}" -gt 0 ] || mapfile -t files < <(git ls-files 'sweeps/*.cpp' 'db/*.cpp' 'orchestrator/*.cpp' worker/protocol.cpp)
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy -p build/fuzz --quiet
echo "tidy: ${#files[@]} files, no finding"
