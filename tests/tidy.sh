#!/usr/bin/env bash
# clang-tidy with the checks of .clang-tidy over everything that is built without LibTorch; findings are errors.
#   ./tests/tidy.sh [FILE ...]     default: all
set -euo pipefail
cd "$(dirname "$0")/.."
{ command -v clang-tidy && command -v clang++; } >/dev/null || {
  echo "tidy: clang-tidy or clang is not installed; nothing was looked at"
  exit 0
}
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz --target git_commit >/dev/null  # a header that is made
files=("$@")
[ "${#files[@]}" -gt 0 ] || mapfile -t files < <(
  sed -n "s|^ *\"file\": \"$PWD/\(.*\)\",*|\1|p" build/fuzz/compile_commands.json |
    grep -E '^(models|sweeps|db|worker|orchestrator)/' | sort -u)
# clang 14 has coroutines and does not say so to Boost.
coroutines=(-D__cpp_impl_coroutine=201902L -DBOOST_ASIO_HAS_CO_AWAIT=1 -DBOOST_ASIO_HAS_STD_COROUTINE=1)
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 4 \
  clang-tidy -p build/fuzz --quiet "${coroutines[@]/#/--extra-arg=}" 2>&1 |
  { grep -vE '^[0-9]+ warnings? (and [0-9]+ errors? )?generated\.$' || true; }
echo "tidy: ${#files[@]} files, no finding"
