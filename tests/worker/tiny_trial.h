#pragma once

#include <vector>

#include "sweeps/trial.h"
#include "worker/device.h"
#include "worker/protocol.h"

/// A trial on the teacher that trains in some ten milliseconds.
inline sweeps::TrialSpec tiny_trial() {
  sweeps::TrialSpec spec;
  spec.run.shape = {.width = 16, .depth = 2, .head_size = 8, .context = 16, .vocab = 128, .ffn_width = 16};
  spec.run.batch = 4;
  spec.run.steps = 40;
  spec.proxy = spec.run;
  spec.base = {.lr = 1e-2, .wd = 0.1, .init_std = 0.1};
  spec.eval = {.tokens = 1024, .every = 0.25};
  spec.seed = 7;
  return spec;
}

/// The same with a MoE block: 4 experts, 2 active, 1 shared.
inline sweeps::TrialSpec tiny_moe_trial() {
  auto spec = tiny_trial();
  auto& shape = spec.run.shape;
  shape.num_experts = 4;
  shape.num_active = 2;
  shape.num_shared = 1;
  shape.expert_width = 8;
  return spec;
}

/// A diffusion model on the templates: images of 8 x 8 pixels in 16 patches.
inline sweeps::TrialSpec tiny_diffusion_trial() {
  auto spec = tiny_trial();
  auto& shape = spec.run.shape;
  shape.family = models::ModelFamily::diffusion_model;
  shape.image_size = 8;
  shape.channels = 1;
  shape.patch = 2;
  spec.run.batch = 8;
  spec.proxy = spec.run;
  spec.data.source = sweeps::DataSource::templates;
  return spec;
}

/// The same with a MoE block.
inline sweeps::TrialSpec tiny_moe_diffusion_trial() {
  auto spec = tiny_diffusion_trial();
  const auto moe = tiny_moe_trial().run.shape;
  auto& shape = spec.run.shape;
  shape.num_experts = moe.num_experts;
  shape.num_active = moe.num_active;
  shape.num_shared = moe.num_shared;
  shape.expert_width = moe.expert_width;
  return spec;
}

inline worker::Assignment assignment_of(const sweeps::TrialSpec& spec) {
  worker::Assignment assignment;
  assignment.spec = spec;
  assignment.trial = sweeps::trial_key(spec);
  return assignment;
}

/// What a stack said, by kind.
struct Messages {
  std::vector<worker::WorkerMessage> all;

  template <class T>
  std::vector<T> of(const sweeps::TrialKey& trial) const {
    std::vector<T> found;
    for (const auto& message : all) {
      if (const auto* one = std::get_if<T>(&message); one && one->trial == trial) found.push_back(*one);
    }
    return found;
  }
  /// One metric's curve, its pieces joined.
  worker::Curve curve(const sweeps::TrialKey& trial, const std::string& metric) const {
    worker::Curve joined;
    for (const auto& piece : of<worker::Curve>(trial)) {
      if (piece.metric != metric) continue;
      joined.steps.insert(joined.steps.end(), piece.steps.begin(), piece.steps.end());
      joined.values.insert(joined.values.end(), piece.values.begin(), piece.values.end());
    }
    return joined;
  }
};
