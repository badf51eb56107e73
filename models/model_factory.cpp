#include <stdexcept>

#include "models/diffusion_model.h"
#include "models/language_model.h"
#include "models/model.h"
#include "models/ops/grouped_mm.h"

namespace models {
namespace {

/// What at::_grouped_mm asks for: rows of whole 16 bytes, and no more groups than it takes.
void validate_for_cuda(const ModelOptions& options) {
  const auto& shape = options.run.shape;
  if (!shape.is_moe()) return;
  const std::int64_t step = options.bfloat16 ? 8 : 4;
  const auto require_multiple = [&](std::int64_t value, const std::string& key) {
    if (value % step == 0) return;
    const std::int64_t below = value / step * step;
    const std::string or_below = below > 0 ? std::to_string(below) + " or " : "";
    throw std::invalid_argument(key + " " + std::to_string(value) + ": a MoE on CUDA needs a multiple of " +
                                std::to_string(step) + (options.bfloat16 ? " in bfloat16" : " in float32") +
                                "; use " + or_below + std::to_string(below + step));
  };
  require_multiple(shape.width, "width");
  require_multiple(shape.expert_width, "expert_width");
  if (shape.num_experts > ops::kMaxGroups)
    throw std::invalid_argument(std::to_string(shape.num_experts) + " experts: a MoE on CUDA has at most " +
                                std::to_string(ops::kMaxGroups));
}

}  // namespace

std::unique_ptr<Model> make_model(const ModelOptions& options) {
  validate(options.run.shape);
  if (options.slots < 1)
    throw std::invalid_argument("slots must be at least 1, found " + std::to_string(options.slots));
  if (!is_trained(options.rule.rule))
    throw std::invalid_argument("rule " + std::string(name(options.rule.rule)) +
                                ": its forward pass is not in this program; it has a table only");
  if (options.device.is_cuda()) validate_for_cuda(options);
  switch (options.run.shape.family) {
    case ModelFamily::language_model: return std::make_unique<LanguageModel>(options);
    case ModelFamily::diffusion_model: return std::make_unique<DiffusionModel>(options);
    case ModelFamily::command:
      throw std::invalid_argument("family \"command\" is trained by the user's own program");
  }
  throw std::logic_error("make_model: unknown ModelFamily");
}

}  // namespace models
