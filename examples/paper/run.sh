#!/usr/bin/env bash
# The reproduction: tunes the dense proxies, then runs one study per axis under Complete-muE, SP and muP, and writes
# README.md and one picture per axis beside this script. A few hours on two cores; stop it at any time, the same
# command goes on.
#   examples/paper/run.sh [-j N] [AXIS ...]     by default every axis
#   WORK=folder                                 where the databases are kept; default ~/.cache/tuneonce/paper
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

jobs=()
if [ "${1:-}" = -j ]; then
  jobs=(-j "$2")
  shift 2
fi
readonly all=(active total granularity shared groups depth width batch_duration diffusion_active diffusion_total)
axes=("$@")
[ "${#axes[@]}" -gt 0 ] || axes=("${all[@]}")
for axis in "${axes[@]}"; do
  [ -e "$here/$axis.toml" ] || {
    echo "there is no axis \"$axis\"; known: ${all[*]}" >&2
    exit 2
  }
done

if [ -z "${TUNEONCE:-}" ]; then
  ./setup.sh
  cmake --preset release -DTUNEONCE_TESTS=OFF >/dev/null
  cmake --build --preset release
fi
readonly tuneonce=${TUNEONCE:-./build/release/bin/tuneonce}
readonly work=${WORK:-$HOME/.cache/tuneonce/paper}
mkdir -p "$work"

# A verdict is a result: DRIFT (3) and no verdict yet (4) go into the tables like PASS.
run() { # study, database
  local code=0
  "$tuneonce" run "$1" --db "$2" "${jobs[@]}" >"${2%.db}.txt" || code=$?
  case $code in
    0 | 3 | 4) ;;
    *) echo "$1: exit code $code; see ${2%.db}.txt and \`tuneonce results $2\`" >&2; exit "$code" ;;
  esac
}

[ -e "$HOME/.cache/tuneonce/gcide" ] || "$tuneonce" data fetch gcide >/dev/null
for axis in "${axes[@]}"; do
  # Trials are known by what they train: an axis that starts from a copy of its proxy's database (the studies have the
  # same name) finds the proxy tuned.
  proxy=$(sed -n 's/^source = "\(.*\)".*/\1/p' "$here/$axis.toml")
  proxy=proxy_${proxy/text/gcide}
  if [ ! -e "$work/$axis.db" ]; then
    echo "== $proxy" >&2
    run "$here/$proxy.toml" "$work/$proxy.db"
    cp "$work/$proxy.db" "$work/$axis.db.new"
    mv "$work/$axis.db.new" "$work/$axis.db"
  fi
  echo "== $axis" >&2
  run "$here/$axis.toml" "$work/$axis.db"
  "$tuneonce" report "$work/$axis.db" --charts "$work/$axis" >/dev/null
  cp "$work/$axis/lr_by_rule.svg" "$here/$axis.svg"
  python3 "$here/tables.py" "$tuneonce" "$work" # after every axis, with what is there
done
