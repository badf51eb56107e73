#!/usr/bin/env bash
# Everything tuneonce needs to build: Debian/Ubuntu packages and LibTorch. Run it as often as you like;
# it costs well under two seconds when nothing is missing.
#
#   TORCH_ROOT=/path/to/torch ./setup.sh     use a LibTorch that is already there (the folder with lib/ and include/)
set -euo pipefail
cd "$(dirname "$0")"

readonly torch_version=2.11.0
readonly deps_dir="$PWD/.deps"
readonly packages=(
  g++ cmake ninja-build git ca-certificates python3 python3-pip binutils
  libboost-dev libfmt-dev libspdlog-dev libtomlplusplus-dev libsqlite3-dev libsqlitecpp-dev
  nlohmann-json3-dev libcli11-dev libeigen3-dev libxxhash-dev zlib1g-dev catch2
)

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing_packages() {
  local installed
  # dpkg-query fails when it does not know one of them; that one is then simply not listed.
  installed=$({ dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' "${packages[@]}" 2>/dev/null || true; } |
    awk '$2 == "ii" { print $1 }')
  for package in "${packages[@]}"; do
    grep -qxF "$package" <<<"$installed" || printf '%s\n' "$package"
  done
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  [ "${#missing[@]}" -gt 0 ] || return 0
  command -v apt-get >/dev/null || {
    say "this system has no apt-get; install the equivalents of: ${missing[*]}"
    exit 6
  }
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Where models/torch.cmake looks, too.
has_driver() {
  local libraries
  libraries=$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null || true)
  [[ $libraries == *libcuda.so.1* || -e /usr/local/nvidia/lib64/libcuda.so.1 || -e /usr/lib/wsl/lib/libcuda.so.1 ]]
}
has_toolkit() {
  compgen -G '/usr/local/cuda*/lib64/libcudart.so.13*' >/dev/null &&
    compgen -G '/usr/local/cuda*/extras/CUPTI/lib64/libcupti.so.13*' >/dev/null
}

# LibTorch is the PyPI wheel. Without a GPU driver only its CPU part is linked, which needs nothing of the
# 4 GB of CUDA libraries but the runtime and CUPTI.
install_torch() {
  local kind=cpu
  ! has_driver || kind=cuda
  local stamp="$deps_dir/torch-$torch_version-$kind.ok"
  [ -z "${TORCH_ROOT:-}" ] || {
    [ -e "$TORCH_ROOT/lib/libtorch_cpu.so" ] || {
      say "TORCH_ROOT=$TORCH_ROOT holds no lib/libtorch_cpu.so; give the folder of an installed torch package"
      exit 6
    }
    return 0
  }
  [ ! -e "$stamp" ] || return 0
  local pip=(python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location
    --root-user-action=ignore --upgrade --target "$deps_dir/python")
  mkdir -p "$deps_dir"
  say "installing LibTorch $torch_version into .deps (530 MB to download, once)"
  if [ "$kind" = cuda ]; then
    "${pip[@]}" "torch==$torch_version"
  else
    "${pip[@]}" --no-deps "torch==$torch_version"
    has_toolkit || "${pip[@]}" --no-deps 'nvidia-cuda-runtime>=13,<14' 'nvidia-cuda-cupti>=13,<14'
  fi
  touch "$stamp"
}

install_packages
install_torch
