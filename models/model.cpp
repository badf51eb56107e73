#include "models/model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "models/generator.h"

namespace models {
namespace {

std::vector<std::int64_t> with_slots(std::int64_t slots, const std::vector<std::int64_t>& dims) {
  std::vector<std::int64_t> sizes{slots};
  sizes.insert(sizes.end(), dims.begin(), dims.end());
  return sizes;
}

bool is_expert(TensorGroup group) {
  return group == TensorGroup::expert_up || group == TensorGroup::expert_down;
}
bool is_gain(TensorGroup group) { return group == TensorGroup::norm || group == TensorGroup::final_norm; }

}  // namespace

Model::Model(const ModelOptions& options) : options_(options) {
  const auto kind = at::device(options.device).dtype(at::kFloat);
  for (auto& spec : tensor_specs(options.run.shape)) {
    at::Tensor value = at::zeros(with_slots(options.slots, spec.dims), kind).set_requires_grad(true);
    parameters_.push_back({std::move(spec), std::move(value)});
  }
}

void Model::initialise(std::int64_t slot, std::uint64_t seed, double init_std) {
  const at::NoGradGuard no_grad;
  for (auto& [spec, value] : parameters_) {
    at::Tensor mine = value.select(0, slot);
    if (is_gain(spec.group)) {
      mine.fill_(1);
      continue;
    }
    if (spec.group == TensorGroup::modulation) {  // adaLN-zero: a fresh block is the identity
      mine.zero_();
      continue;
    }
    const auto scaling = group_scaling(spec.group, options_.run, options_.proxy, options_.rule);
    const bool one_for_all = is_expert(spec.group) && experts_start_alike(options_.rule);
    const at::Tensor numbers =
        at::empty(one_for_all ? at::IntArrayRef(spec.dims).slice(1) : at::IntArrayRef(spec.dims), at::kFloat);
    fill_normal({numbers.mutable_data_ptr<float>(), static_cast<std::size_t>(numbers.numel())},
                tensor_key(seed, spec.name), init_std * scaling.init_std);
    mine.copy_(numbers);
  }
  for (auto& buffer : buffers_) buffer.value.select(0, slot).zero_();
}

}  // namespace models
