#include "sweeps/study.h"

#include <stdexcept>

namespace sweeps {

int RetrySpec::limit(FailureClass failure) const {
  switch (failure) {
    case FailureClass::crash: return crash;
    case FailureClass::stalled: return stalled;
    case FailureClass::worker_lost: return worker_lost;
    case FailureClass::oom_host: return oom_host;
    case FailureClass::oom_gpu: return oom_gpu;
    case FailureClass::gpu_lost: return gpu_lost;
    case FailureClass::user_error:
    case FailureClass::cancelled:
    case FailureClass::disk_full: return 0;
  }
  throw std::logic_error("RetrySpec::limit: unknown FailureClass");
}

bool is_comparator(const Study& study, const TargetSpec& target) {
  return target.rule.rule != study.rule.rule;
}

models::RuleUse options_in_use(const Study& study) {
  models::RuleUse all = models::uses(study.rule.rule);
  for (const auto& target : study.targets) {
    const auto use = models::uses(target.rule.rule);
    all.depth_exponent |= use.depth_exponent;
    all.duration_exponent |= use.duration_exponent;
    all.wd_width |= use.wd_width;
    all.head |= use.head;
    all.mssp_regime |= use.mssp_regime;
  }
  return all;
}

}  // namespace sweeps
