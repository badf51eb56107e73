#!/usr/bin/env bash
# Builds everything but LibTorch's rooms under the address and undefined-behaviour sanitizers, and the same under the
# thread sanitizer, and runs the tests there, without the slow ones.
#   ./tests/sanitize.sh [asan|tsan]     default: both
#
# Of the faults, the thread sanitizer's part leaves out those that kill often: with one thread they show it nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
# The tests preload a library of faults, and their workers die of SIGSEGV on purpose.
export ASAN_OPTIONS=verify_asan_link_order=0:handle_segv=0:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=handle_segv=0

sanitize() {
  cmake --preset "$1" >/dev/null
  cmake --build --preset "$1"
  "./build/$1/bin/tuneonce_tests" "$2" &
  local first=$!
  "./build/$1/bin/tuneonce_tests" "$3"
  wait "$first"
}
[ "${1:-asan}" != asan ] || sanitize asan '~[slow]~[faults]' '[faults]~[slow]'
[ "${1:-tsan}" != tsan ] ||
  sanitize tsan '[orchestrator]~[slow]~[faults]' '[faults]~[slow]~[F1]~[F2]~[F3]~[F5]~[F16]~[F17]~[F19]~[F22]'
