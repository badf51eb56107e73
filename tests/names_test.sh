#!/usr/bin/env bash
# ctest reads test names as CMake lists: a name with ; [ ] " or \ in it would silently swallow those after it.
# Usage: names_test.sh TEST-PROGRAM...
set -u
bad=0
for program in "$@"; do
  names=$("$program" --list-test-names-only 2>/dev/null)  # Catch2 v2; its exit status is the count
  [ -n "$names" ] || names=$("$program" --list-tests --verbosity quiet)  # v3
  [ -n "$names" ] || { echo "$program lists no tests"; exit 1; }
  grep -nE '[][;\\"]' <<<"$names" && { echo "$program: the names above cannot be run by ctest"; bad=1; }
done
exit "$bad"
