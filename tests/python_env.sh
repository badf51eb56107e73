#!/usr/bin/env bash
# A Python for the tests that need more than its standard library: installs what is missing, prints its path.
# It costs well under a second when nothing is missing.
#
#   ./tests/python_env.sh torch     PyTorch for the CPU: Debian's python3-torch. PyPI's wheel brings 4.7 GB of CUDA
#                                   libraries and cannot be imported without them.
#   ./tests/python_env.sh optuna    Optuna and its dashboard, from PyPI, in .deps/venv-optuna
#   ./tests/python_env.sh ray       Ray Tune, from PyPI, in .deps/venv-ray
#
#   TUNEONCE_PYTHON=/path/to/python  use this one; nothing is installed
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'python_env: %s\n' "$*" >&2; }
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}
# Looks without importing, which takes seconds.
has_modules() {
  "$1" -c 'import sys, importlib.util as u; sys.exit(not all(u.find_spec(m) for m in sys.argv[1].split()))' "$2" \
    >/dev/null 2>&1
}
import_all() { "$1" -c "import ${2// /, }" >&2 || { say "$1 cannot import $2"; exit 6; }; }

apt_install() {
  command -v apt-get >/dev/null || {
    say "this system has no apt-get; install the equivalents of: $* or name a Python in TUNEONCE_PYTHON"
    exit 6
  }
  say "installing Debian packages: $*"
  as_root apt-get update -qq >&2
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# from_pypi NAME MODULES PACKAGES...
from_pypi() {
  local folder="$PWD/.deps/venv-$1" modules=$2
  shift 2
  local python="$folder/bin/python"
  [ -x "$python" ] && has_modules "$python" "$modules" && { echo "$python"; return; }
  /usr/bin/python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
  say "installing $* from PyPI into ${folder#"$PWD/"}"
  rm -rf "$folder"
  /usr/bin/python3 -m venv "$folder"
  "$python" -m pip install --quiet --disable-pip-version-check "$@" >&2
  import_all "$python" "$modules"
  echo "$python"
}

modules_of() {
  case $1 in
    torch) echo torch ;;
    optuna) echo optuna optuna_dashboard pandas plotly ;;
    ray) echo ray pyarrow ;;
    *) say "unknown word \"$1\"; known: torch, optuna, ray"; exit 2 ;;
  esac
}

[ $# = 1 ] || { say "give one of: torch, optuna, ray"; exit 2; }
modules=$(modules_of "$1")
if [ -n "${TUNEONCE_PYTHON:-}" ]; then
  has_modules "$TUNEONCE_PYTHON" "$modules" || { say "TUNEONCE_PYTHON=$TUNEONCE_PYTHON has no $modules"; exit 6; }
  echo "$TUNEONCE_PYTHON"
  exit
fi
mkdir -p .deps
exec 9>".deps/python_env-$1.lock"
flock 9  # tests run side by side
case $1 in
  torch)
    # Without OpenBLAS, Debian's torch multiplies matrices twenty times slower.
    has_modules /usr/bin/python3 torch && compgen -G '/usr/lib/*/openblas-pthread/libblas.so.3' >/dev/null || {
      apt_install python3-torch libopenblas0-pthread
      import_all /usr/bin/python3 torch
    }
    echo /usr/bin/python3
    ;;
  optuna) from_pypi optuna "$modules" optuna==5.0.0 optuna-dashboard pandas plotly ;;
  ray) from_pypi ray "$modules" 'ray[tune]==2.60.0' ;;
esac
