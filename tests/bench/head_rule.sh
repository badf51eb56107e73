#!/usr/bin/env bash
# Which head rule is right? Trains a dense proxy and wider targets (dense, MoE) for a few hundred steps under Complete-muE with
# each head rule and prints the held-out loss: one line a trial, "data model head lr seed loss".
#   head_rule.sh WORKER [SOURCE [PATH]]     SOURCE: teacher (default) or text; about ten minutes on one core
set -eu
worker=$1 source=${2:-teacher} path=${3:-}
steps=${STEPS:-300} seeds=${SEEDS:-1} lrs=${LRS:-0.0055 0.011 0.022} widths=${WIDTHS:-64 128 256}
vocab=128; [ "$source" = text ] && vocab=256
std=${STD:-0.125}
shape() {  # WIDTH N A S
  echo "{\"family\":\"language_model\",\"width\":$1,\"depth\":2,\"head_size\":32,\"context\":64,\"vocab\":$vocab,\"ffn_width\":$1,\"num_experts\":$2,\"num_active\":$3,\"num_shared\":$4,\"num_groups\":1,\"expert_width\":$(($2 > 0 ? $1 : 0)),\"image_size\":0,\"channels\":0,\"patch\":0}"
}
trial() {  # SHAPE HEAD LR SEED
  cat <<END
{"name":"t","role":"proxy","target":"","run":{"shape":$1,"batch":16,"steps":$steps},"proxy":{"shape":$(shape 64 0 0 0),"batch":16,"steps":$steps},
 "rule":{"rule":"complete-mue","depth_exponent":1.0,"duration_exponent":0.5,"wd_width":"scaled","head":"$2"},
 "base":{"lr":$3,"wd":0.1,"init_std":$std,"beta1":0.9,"beta2":0.95,"eps":1e-10},
 "schedule":{"kind":"wsd","warmup":0.05,"decay":0.3},"clip":1.0,"precision":"float32","balancing":"bias","seed":$4,
 "data":{"source":"$source","path":"$path","validation_path":"","holdout":0.02,"teacher_seed":1,"fingerprint":""},"eval":{"tokens":65536,"every":1}}
END
}
for width in $widths; do
  for model in dense 8e2a1s; do
    [ "$model" = dense ] && moe="0 0 0" || moe="8 2 1"
    [ "$model$width" = 8e2a1s256 ] && continue
    for head in published mup complete-dp; do
      [ "$width" = 64 ] && [ "$head" != mup ] && continue  # all rules are the same at the proxy's width
      for lr in $lrs; do
        for seed in $seeds; do
          out=$(trial "$(shape "$width" $moe)" "$head" "$lr" "$seed" | "$worker" --trial - |
            sed -n 's/.*"loss":\([0-9.]*\).*"type":"finished".*/\1/p; s/.*"type":"diverged".*/diverged/p')
          echo "$source $model-$width $head $lr $seed $out"
        done
      done
    done
  done
done
