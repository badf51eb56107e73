#include "worker/checkpoint.h"

#include <cstdio>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <nlohmann/json.hpp>

#include "worker/protocol.h"
#include "worker/safetensors.h"

namespace worker {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kFormat = "tuneonce checkpoint 2";

/// Every tensor of a slot under the name it has in the file; views into the model and the optimizer.
std::vector<std::pair<std::string, at::Tensor>> slot_tensors(std::int64_t slot, models::Model& model,
                                                             AdamW& optimizer) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  const auto add = [&](const std::string& name, const at::Tensor& all) {
    tensors.emplace_back(name, all.detach().select(0, slot));
  };
  for (std::size_t i = 0; i < model.parameters().size(); ++i) {
    const auto& parameter = model.parameters()[i];
    add("weight." + parameter.spec.name, parameter.value);
    add("first_moment." + parameter.spec.name, optimizer.first_moments()[i]);
    add("second_moment." + parameter.spec.name, optimizer.second_moments()[i]);
  }
  for (const auto& buffer : model.buffers()) add("buffer." + buffer.name, buffer.value);
  return tensors;
}

json branches_json(const std::vector<sweeps::BranchLoss>& branches) {
  json array = json::array();
  for (const auto& branch : branches)
    array.push_back({{"fraction", branch.fraction}, {"steps", branch.steps}, {"loss", branch.loss}});
  return array;
}

template <class T>
SafeTensor view_of(const std::vector<T>& values) {
  constexpr Dtype kDtype = std::is_same_v<T, double> ? Dtype::f64 : Dtype::i64;
  return {kDtype, {static_cast<std::int64_t>(values.size())}, std::as_bytes(std::span(values))};
}

template <class T>
std::vector<T> values_of(const SafeTensor& tensor, Dtype dtype) {
  if (tensor.dtype != dtype || tensor.shape.size() != 1) throw SafetensorsError("a curve of another type");
  std::vector<T> values(tensor.data.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

json progress_json(const TrialProgress& progress, std::int64_t updates) {
  json curves = json::object();
  for (const auto& [metric, curve] : progress.curves) {
    curves[metric] = {{"stride", curve.stride}, {"sum", curve.sum}, {"count", curve.count}};
  }
  return {{"step", progress.step},
          {"updates", updates},
          {"seconds", progress.seconds},
          {"first_loss", progress.runaway.first},
          {"mean_loss", progress.runaway.mean},
          {"branches", branches_json(progress.branches)},
          {"branch_updates", progress.branch_updates},
          {"curves", curves}};
}

TrialProgress read_progress(const Safetensors& file, const json& state) {
  TrialProgress progress;
  progress.step = state.at("step").get<std::int64_t>();
  progress.seconds = state.at("seconds").get<double>();
  progress.runaway.first = state.at("first_loss").get<double>();
  progress.runaway.mean = state.at("mean_loss").get<double>();
  for (const auto& branch : state.at("branches"))
    progress.branches.push_back({branch.at("fraction").get<double>(), branch.at("steps").get<std::int64_t>(),
                                 branch.at("loss").get<double>()});
  progress.branch_updates = state.at("branch_updates").get<std::int64_t>();
  for (const auto& [metric, curve] : state.at("curves").items()) {
    CurveRecorder& recorder = progress.curves[metric];
    recorder.stride = curve.at("stride").get<std::int64_t>();
    recorder.sum = curve.at("sum").get<double>();
    recorder.count = curve.at("count").get<std::int64_t>();
    recorder.steps = values_of<std::int64_t>(file.at("curve_steps." + metric), Dtype::i64);
    recorder.values = values_of<double>(file.at("curve_values." + metric), Dtype::f64);
    if (recorder.steps.size() != recorder.values.size()) throw SafetensorsError("a curve of two lengths");
  }
  return progress;
}

void check_fits(const SafeTensor& from, const at::Tensor& to, const std::string& name) {
  if (from.dtype != Dtype::f32 || at::IntArrayRef(from.shape) != to.sizes()) {
    throw SafetensorsError("tensor " + name + " has another shape");
  }
}

void copy_in(const SafeTensor& from, at::Tensor to) {
  const at::Tensor values = at::empty(to.sizes(), at::kFloat);
  std::memcpy(values.mutable_data_ptr<float>(), from.data.data(), from.data.size());
  to.copy_(values);
}

constexpr const char* kTrunk = "trunk.";  // before the names of the trunk's tensors

fs::path previous(const fs::path& file) { return file.string() + kPreviousCheckpoint; }

/// load_checkpoint() of this very file.
std::optional<TrialProgress> load(const fs::path& file, const sweeps::TrialKey& trial, std::int64_t num_steps,
                                  std::int64_t slot, models::Model& model, AdamW& optimizer,
                                  std::optional<SlotState>& trunk) {
  std::error_code error;
  if (!fs::exists(file, error)) return std::nullopt;
  try {
    const Safetensors saved = Safetensors::read(file);
    if (saved.metadata("format") != kFormat) throw SafetensorsError("another format");
    if (saved.metadata("trial") != trial) throw SafetensorsError("of another trial");
    const json state = json::parse(saved.metadata("progress"));
    const auto updates = state.at("updates").get<std::int64_t>();
    TrialProgress progress = read_progress(saved, state);
    if (progress.step < 0 || progress.step > num_steps)
      throw SafetensorsError("a step beyond the trial's end");

    const auto tensors = slot_tensors(slot, model, optimizer);
    for (const auto& [name, tensor] : tensors) check_fits(saved.at(name), tensor, name);
    const at::NoGradGuard no_grad;
    if (progress.branch_updates > 0) {
      SlotState kept{.tensors = {}, .updates = updates - progress.branch_updates};
      for (const auto& [name, tensor] : tensors) {
        const auto& from = saved.at(kTrunk + name);
        check_fits(from, tensor, name);
        copy_in(from, kept.tensors.emplace_back(name, at::empty_like(tensor)).second);
      }
      trunk = std::move(kept);
    }
    for (const auto& [name, tensor] : tensors) copy_in(saved.at(name), tensor);
    optimizer.set_updates(slot, updates);
    return progress;
  } catch (const std::exception& cause) {  // SafetensorsError, JSON: either way the file is of no use
    std::fprintf(stderr, "checkpoint %s is of no use: %s\n", file.c_str(), cause.what());
    return std::nullopt;
  }
}

}  // namespace

SlotState copy_of(std::int64_t slot, models::Model& model, AdamW& optimizer) {
  SlotState state{.tensors = slot_tensors(slot, model, optimizer), .updates = optimizer.updates(slot)};
  for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();
  return state;
}

void restore(const SlotState& state, std::int64_t slot, models::Model& model, AdamW& optimizer) {
  const at::NoGradGuard no_grad;
  const auto tensors = slot_tensors(slot, model, optimizer);
  for (std::size_t i = 0; i < tensors.size(); ++i)
    at::Tensor(tensors[i].second).copy_(state.tensors[i].second);
  optimizer.set_updates(slot, state.updates);
}

std::string save_checkpoint(const fs::path& file, const sweeps::TrialKey& trial, std::int64_t slot,
                            models::Model& model, AdamW& optimizer, const TrialProgress& progress,
                            const std::optional<SlotState>& trunk) {
  std::vector<at::Tensor> kept;  // what the views below look into
  std::map<std::string, SafeTensor> tensors;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    kept.push_back(tensor.to(at::kCPU, at::kFloat).contiguous());
    const auto* data = reinterpret_cast<const std::byte*>(kept.back().const_data_ptr<float>());
    tensors[name] = {Dtype::f32, kept.back().sizes().vec(), {data, kept.back().nbytes()}};
  };
  for (const auto& [name, tensor] : slot_tensors(slot, model, optimizer)) add(name, tensor);
  if (trunk)
    for (const auto& [name, tensor] : trunk->tensors) add(kTrunk + name, tensor);
  for (const auto& [metric, curve] : progress.curves) {
    tensors["curve_steps." + metric] = view_of(curve.steps);
    tensors["curve_values." + metric] = view_of(curve.values);
  }
  return write_safetensors(file, tensors,
                           {{"format", kFormat},
                            {"trial", trial},
                            {"progress", progress_json(progress, optimizer.updates(slot)).dump()}},
                           previous(file));
}

std::optional<TrialProgress> load_checkpoint(const fs::path& file, const sweeps::TrialKey& trial,
                                             std::int64_t num_steps, std::int64_t slot, models::Model& model,
                                             AdamW& optimizer, std::optional<SlotState>& trunk) {
  if (auto progress = load(file, trial, num_steps, slot, model, optimizer, trunk)) return progress;
  auto progress = load(previous(file), trial, num_steps, slot, model, optimizer, trunk);
  std::error_code read_only;
  if (progress) fs::rename(previous(file), file, read_only);  // what is of no use must not push it out later
  return progress;
}

}  // namespace worker
