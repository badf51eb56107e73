#!/usr/bin/env bash
# Folders point one way: fails on an #include that a room may not have ("Rooms" in README.md).
set -u
cd "$(dirname "$0")/.."

bad=0
# forbid FILES-GLOB REGEX REASON
forbid() {
  local files=$1 pattern=$2 reason=$3 hits
  # shellcheck disable=SC2086
  hits=$(grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($pattern)" $files /dev/null 2>/dev/null)
  [ -z "$hits" ] && return
  printf '%s:\n%s\n' "$reason" "$hits"
  bad=1
}

rules="models/shape.* models/parameterization.*"
models=$(find models -name '*.h' -o -name '*.cpp' -o -name '*.cu')
sweeps=$(find sweeps -name '*.h' -o -name '*.cpp')
db=$(find db -name '*.h' -o -name '*.cpp')
worker=$(find worker -name '*.h' -o -name '*.cpp')
orchestrator=$(find orchestrator -name '*.h' -o -name '*.cpp')
libtorch='torch/|ATen/|c10/'
tensors='models/(model|block_model|language_model|diffusion_model|moe|attention|ops|precompiled)'

forbid "$rules" "$libtorch|sweeps/|db/|worker/|orchestrator/|$tensors" "models_rules knows nothing"
forbid "$models" 'sweeps/|db/|worker/|orchestrator/' "models may include models only"
forbid "$sweeps" "$libtorch|db/|worker/|orchestrator/|$tensors|boost/asio|sqlite3|SQLiteCpp|nlohmann/" "sweeps is pure arithmetic"
forbid "$(find sweeps -name '*.h' -o -name '*.cpp' ! -name 'study_file.cpp')" 'toml\+\+' "toml++ stays in sweeps/study_file.cpp"
forbid "$db" "$libtorch|worker/|orchestrator/|$tensors|boost/asio" "db may include sweeps' types only"
forbid "$worker" 'db/|orchestrator/|boost/|sqlite3|SQLiteCpp' "worker never meets db"
forbid "worker/protocol.*" "$libtorch|$tensors" "worker_protocol is shared with a program without LibTorch"
forbid "worker/processes.*" "$libtorch|$tensors|sweeps/|nlohmann/" "worker_processes is shared and depends on nothing"
forbid "$orchestrator" "$libtorch|$tensors|worker/(train|data|schedule|optimizer|checkpoint|device|main|command|metric|channel|process_tree)" "orchestrator sees neither LibTorch nor the worker's inside"

[ "$bad" = 0 ] && echo "includes point one way"
exit "$bad"
