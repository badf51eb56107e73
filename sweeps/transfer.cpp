#include "sweeps/transfer.h"

#include <set>

namespace sweeps {
namespace {

TransferRow make_row(models::TensorGroup group, const models::GroupScaling& factor,
                     const Hyperparameters& optimum, models::Parameterization rule) {
  TransferRow row;
  row.group = group;
  row.factor = factor;
  row.init_std = optimum.init_std * factor.init_std;
  row.lr = optimum.lr * factor.lr;
  row.wd = optimum.wd * factor.wd;
  row.eps = optimum.eps * factor.eps;
  row.beta1 = models::scaled_beta(optimum.beta1, factor.one_minus_beta, "beta1");
  row.beta2 = models::scaled_beta(optimum.beta2, factor.one_minus_beta, "beta2");
  row.decays = models::decays(group);
  row.source = models::source(group, rule);
  return row;
}

}  // namespace

TargetConfig transfer(const std::string& target, const models::RunShape& run, const models::RunShape& proxy,
                      const Hyperparameters& optimum, const models::RuleOptions& options) {
  TargetConfig config;
  config.target = target;
  config.moe = models::moe_code(run.shape);
  config.run = run;
  config.rule = options;
  config.base = optimum;
  config.route_scale = models::route_scale(run.shape, options);
  config.sigma0_ratio = models::sigma0_ratio(run, proxy, options);
  config.caveats = models::caveats(run, proxy, options);

  std::set<models::TensorGroup> groups;  // ordered as the enum
  for (const auto& spec : models::tensor_specs(run.shape)) groups.insert(spec.group);
  for (const auto group : groups)
    config.rows.push_back(
        make_row(group, models::group_scaling(group, run, proxy, options), optimum, options.rule));

  const auto down = run.shape.is_moe() ? models::TensorGroup::expert_down : models::TensorGroup::ffn_down;
  config.branch_scale = models::group_scaling(down, run, proxy, options).forward;
  return config;
}

}  // namespace sweeps
