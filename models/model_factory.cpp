#include <stdexcept>

#include "models/language_model.h"
#include "models/model.h"

namespace models {

std::unique_ptr<Model> make_model(const ModelOptions& options) {
  validate(options.run.shape);
  if (options.slots < 1)
    throw std::invalid_argument("slots must be at least 1, found " + std::to_string(options.slots));
  switch (options.run.shape.family) {
    case ModelFamily::language_model: return std::make_unique<LanguageModel>(options);
  }
  throw std::logic_error("make_model: unknown ModelFamily");
}

}  // namespace models
