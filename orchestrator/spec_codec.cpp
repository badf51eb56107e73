#include "orchestrator/spec_codec.h"

#include <nlohmann/json.hpp>

#include "worker/protocol.h"

namespace orchestrator {

db::SpecCodec spec_codec() {
  return {[](const sweeps::TrialSpec& spec) { return worker::to_json(spec).dump(); },
          [](const std::string& text) { return worker::spec_from_json(nlohmann::json::parse(text)); }};
}

}  // namespace orchestrator
