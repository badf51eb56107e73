#include "orchestrator/nominal_plan.h"

#include <cmath>

namespace orchestrator {
namespace {

double middle(const sweeps::Range& range) {
  return range.log_scale && range.min > 0 ? std::sqrt(range.min * range.max) : (range.min + range.max) / 2;
}

}  // namespace

NominalPlan nominal_plan(const sweeps::Study& study) {
  NominalPlan plan;
  plan.optimum = study.base;
  const bool adaptive = study.search.method == sweeps::SearchMethod::adaptive;
  plan.optimum.lr = adaptive ? study.search.start.first : middle(study.space.lr);
  plan.optimum.wd = adaptive ? study.search.start.second : middle(study.space.wd);
  if (!study.space.init_std.empty())
    plan.optimum.init_std = study.space.init_std[study.space.init_std.size() / 2];
  if (auto scan = sweeps::plan_scan(study); !scan.empty())
    plan.parts.push_back({"init std scan", std::move(scan)});
  plan.parts.push_back({"proxy sweep", sweeps::plan_sweep(study, plan.optimum.init_std)});
  if (auto trials = sweeps::plan_confirmation(study, plan.optimum); !trials.empty())
    plan.parts.push_back({"confirmation", std::move(trials)});
  for (const auto& target : study.targets) {
    plan.targets.push_back(sweeps::transfer(target.name, target.run, study.proxy, plan.optimum, target.rule));
    plan.parts.push_back({"target " + target.name, sweeps::plan_target(study, target, plan.optimum)});
  }
  return plan;
}

double total_flops(const NominalPlan& plan) {
  double flops = 0;
  for (const auto& part : plan.parts)
    for (const auto& trial : part.trials) flops += sweeps::cost(trial).flops;
  return flops;
}

}  // namespace orchestrator
