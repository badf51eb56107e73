#!/usr/bin/env bash
# The program tuneonce-worker by hand: WORKER is its path. Bad input: one line on stderr, the right exit code.
set -u
worker=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bad=0

# expect CODE TEXT ARGS...: exit code and a piece of what is printed; descriptor 3 is closed.
expect() {
  local code=$1 text=$2 output status
  shift 2
  output=$("$worker" "$@" 2>&1 3>&-)
  status=$?
  if [ "$status" != "$code" ] || [[ "$output" != *"$text"* ]]; then
    printf 'tuneonce-worker %s\n  exit %s, expected %s\n  printed: %s\n  expected: %s\n' "$*" "$status" "$code" "$output" "$text"
    bad=1
  fi
}

data='{"source":"teacher","path":"","validation_path":"","holdout":0.02,"teacher_seed":0,"fingerprint":""}'
shape='{"family":"language_model","width":16,"depth":1,"head_size":8,"context":16,"vocab":128,"ffn_width":16,"num_experts":0,"num_active":0,"num_shared":0,"num_groups":1,"expert_width":0}'
run="{\"shape\":$shape,\"batch\":2,\"steps\":20}"
cat > "$folder/trial.json" <<END
{"name":"t","role":"proxy","target":"","run":$run,"proxy":$run,
 "rule":{"rule":"complete-mue","depth_exponent":1.0,"duration_exponent":0.5,"wd_width":"scaled","head":"published"},
 "base":{"lr":0.01,"wd":0.1,"init_std":0.1,"beta1":0.9,"beta2":0.95,"eps":1e-10},
 "schedule":{"kind":"wsd","warmup":0.02,"decay":0.2},"clip":1.0,"precision":"float32","balancing":"bias","seed":1,
 "data":$data,"eval":{"tokens":256,"every":0.5}}
END
echo "{\"data\":$data,\"context\":16,\"vocab\":128,\"eval_tokens\":256}" > "$folder/data.json"
echo '{' > "$folder/broken.json"
sed 's/"lr"/"rl"/' "$folder/trial.json" > "$folder/misspelt.json"
sed 's/"head_size":8/"head_size":5/g' "$folder/trial.json" > "$folder/shape.json"

expect 0 'tuneonce-worker' --version
expect 0 '--trial FILE' --help
expect 0 '"type":"finished"' --trial "$folder/trial.json"
expect 0 '"holdout_tokens":256' --inspect "$folder/data.json"
expect 0 '"type":"checkpointed"' --trial "$folder/trial.json" --checkpoint "$folder/c" --checkpoint-seconds 0.000001
expect 2 'descriptor 3 is not a socket'
expect 2 'unknown argument "--what"' --what
expect 2 '--trial needs a value' --trial
expect 2 'cannot read' --trial "$folder/none.json"
expect 2 'broken.json' --trial "$folder/broken.json"
expect 2 "spec.base has no field 'lr'" --trial "$folder/misspelt.json"
expect 1 '"failure":"user_error"' --trial "$folder/shape.json"
expect 6 'unknown device "gpu"' --trial "$folder/trial.json" --device gpu
expect 6 'device cuda:99 is not there' --trial "$folder/trial.json" --device cuda:99
exit "$bad"
