#include "sweeps/study.h"

namespace sweeps {

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
