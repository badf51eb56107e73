#include "orchestrator/verdicts.h"

#include <cmath>

#include <fmt/format.h>

#include "orchestrator/output.h"
#include "sweeps/drift_summary.h"

namespace orchestrator {
namespace {

db::Value text(std::string_view value) { return std::string(value); }
db::Value number(std::int64_t value) { return value; }
db::Value flag(bool value) { return static_cast<std::int64_t>(value); }

std::vector<db::Value> fit_row(const std::string& model, double init_std, const sweeps::Optimum& fit,
                               std::int64_t steps) {
  const bool has_box = fit.near_lr.hi > fit.near_lr.lo;
  const auto edge = [&](double octaves) { return has_box ? db::Value(std::exp2(octaves)) : db::Value(); };
  return {text(model),
          std::exp2(fit.lr.estimate),
          std::exp2(fit.lr.ci.lo),
          std::exp2(fit.lr.ci.hi),
          std::exp2(fit.wd.estimate),
          std::exp2(fit.wd.ci.lo),
          std::exp2(fit.wd.ci.hi),
          flag(fit.wd_fitted),
          flag(fit.bracketed()),
          init_std,
          fit.best_loss,
          fit.sigma,
          fit.k,
          fit.hx,
          fit.hxy,
          fit.hy,
          edge(fit.near_lr.lo),
          edge(fit.near_lr.hi),
          edge(fit.near_wd.lo),
          edge(fit.near_wd.hi),
          fit.regret_tolerance,
          number(fit.num_points),
          number(fit.num_diverged),
          number(steps),
          db::Value(),
          db::Value(),
          db::Value()};
}

/// A copy has its rule in its name; a target with a rule of its own gets it here.
std::string title(const sweeps::Study& study, const sweeps::TargetSpec& target) {
  const bool tells = target.copy_of.empty() && sweeps::is_comparator(study, target);
  return tells ? fmt::format("{} ({})", target.name, models::name(target.rule.rule)) : target.name;
}

std::string factor(double value) { return value == 1 ? "1" : fmt::format("{:.4g}", value); }

}  // namespace

std::string fit_text(const sweeps::Study& study, const sweeps::Analysis& analysis) {
  if (!analysis.fit) return fmt::format("proxy: no fit yet; {} trials are missing", analysis.missing.size());
  if (const auto* few = std::get_if<sweeps::TooFewTrials>(&*analysis.fit)) return "proxy: " + few->message;
  if (const auto* poor = std::get_if<sweeps::RankDeficient>(&*analysis.fit)) return "proxy: " + poor->message;
  auto result = sweeps::describe(std::get<sweeps::Optimum>(*analysis.fit), "proxy", study.proxy.steps);
  result +=
      fmt::format("\n  init std         {:.4g}{}", analysis.init_std,
                  analysis.scan.empty() ? "" : fmt::format(", the best of {} scanned", analysis.scan.size()));
  if (!analysis.search_end.empty()) result += fmt::format("\n  search           {}", analysis.search_end);
  if (const auto check = sweeps::confirmation(study, analysis))
    result += fmt::format(
        "\n  confirmation     {:.4f} mean of {} fresh seeds at the optimum, {:+.4f} from the fit: {}",
        check->mean, check->num_trials, check->difference,
        check->agrees() ? fmt::format("agrees (noise {:.4f})", check->bound)
                        : fmt::format("more than noise ({:.4f})", check->bound));
  if (const auto horizons = sweeps::describe_horizons(analysis); !horizons.empty()) result += "\n" + horizons;
  return result;
}

db::Table fit_table(const sweeps::Study& study, const sweeps::Analysis& analysis) {
  db::Table table;
  table.columns = {"model",        "lr",           "lr_low",          "lr_high",      "wd",          "wd_low",
                   "wd_high",      "wd_fitted",    "bracketed",       "init_std",     "loss",        "sigma",
                   "skew",         "curvature_lr", "curvature_cross", "curvature_wd", "near_lr_low", "near_lr_high",
                   "near_wd_low",  "near_wd_high", "tolerance",       "num_points",   "num_diverged",
                   "steps",        "trend",        "trend_low",       "trend_high"};
  if (analysis.fit)
    if (const auto* fit = std::get_if<sweeps::Optimum>(&*analysis.fit))
      table.rows.push_back(fit_row("proxy", analysis.init_std, *fit, study.proxy.steps));
  if (analysis.trend) {
    auto& row = table.rows.at(0);
    row.resize(row.size() - 3);
    row.insert(row.end(), {analysis.trend->slope, analysis.trend->ci.lo, analysis.trend->ci.hi});
  }
  for (const auto& horizon : analysis.horizons)
    if (const auto* fit = std::get_if<sweeps::Optimum>(&horizon.fit); fit && horizon.fraction < 1)
      table.rows.push_back(fit_row(sweeps::model_name(horizon), analysis.init_std, *fit, horizon.steps));
  for (const auto& target : analysis.targets)
    if (target.drift && target.drift->fit)
      table.rows.push_back(fit_row(target.spec.name, target.config.base.init_std, *target.drift->fit,
                                   target.config.run.steps));
  return table;
}

db::Table transfer_table(const std::vector<sweeps::TargetConfig>& targets) {
  db::Table table;
  table.columns = {"target",
                   "rule",
                   "group",
                   "init_std",
                   "lr",
                   "wd",
                   "eps",
                   "beta1",
                   "beta2",
                   "decays",
                   "init_std_factor",
                   "lr_factor",
                   "wd_factor",
                   "eps_factor",
                   "one_minus_beta_factor",
                   "forward_factor",
                   "source"};
  for (const auto& target : targets)
    for (const auto& row : target.rows)
      table.rows.push_back({text(target.target), text(models::name(target.rule.rule)),
                            text(models::name(row.group)), row.init_std, row.lr, row.wd, row.eps, row.beta1,
                            row.beta2, flag(row.decays), row.factor.init_std, row.factor.lr, row.factor.wd,
                            row.factor.eps, row.factor.one_minus_beta, row.factor.forward, text(row.source)});
  return table;
}

std::string transfer_text(const std::vector<sweeps::TargetConfig>& targets) {
  std::string result;
  for (const auto& target : targets) {
    const auto& shape = target.run.shape;
    result += fmt::format(
        "{}{}  {}, width {}, depth {}, batch {}, steps {}, rule {}\n"
        "  tuned on the proxy: LR {:.4g}, WD {:.4g}, init std {:.4g}\n"
        "  branch multiplier A {:.4g}, route scale R {:.4g}, predicted gradient noise x{:.3g}\n",
        result.empty() ? "" : "\n", target.target, target.moe, shape.width, shape.depth, target.run.batch,
        target.run.steps, models::name(target.rule.rule), target.base.lr, target.base.wd,
        target.base.init_std, target.branch_scale, target.route_scale, target.sigma0_ratio);
    for (const auto& caveat : target.caveats)
      result += fmt::format("  {}: {}\n", models::name(target.rule.rule), caveat);
    db::Table table;
    table.columns = {"  group", "init std", "x",     "LR",    "x",       "WD",    "x",
                     "eps",     "x",        "beta1", "beta2", "forward", "source"};
    for (const auto& row : target.rows)
      table.rows.push_back({"  " + std::string(models::name(row.group)),
                            row.decays ? fmt::format("{:.4g}", row.init_std) : "gain 1",
                            row.decays ? factor(row.factor.init_std) : "", fmt::format("{:.4g}", row.lr),
                            factor(row.factor.lr), row.decays ? fmt::format("{:.4g}", row.wd) : "none",
                            row.decays ? factor(row.factor.wd) : "", fmt::format("{:.3g}", row.eps),
                            factor(row.factor.eps), fmt::format("{:.6g}", row.beta1),
                            fmt::format("{:.6g}", row.beta2), factor(row.factor.forward), row.source});
    result += format_table(table, Format::table);
  }
  if (!result.empty()) result.pop_back();
  return result;
}

db::Table drift_table(const sweeps::Analysis& analysis) {
  db::Table table;
  table.columns = {"target",        "verdict",
                   "reason",        "num_points",
                   "num_diverged",  "tolerance",
                   "sigma",         "lr_shift",
                   "lr_shift_low",  "lr_shift_high",
                   "wd_shift",      "wd_shift_low",
                   "wd_shift_high", "tau_shift",
                   "regret",        "regret_debiased",
                   "regret_upper",  "probability_within",
                   "gradient_p",    "location_equivalent",
                   "lr_factor",     "wd_factor",
                   "more_runs",     "sigma0_ratio",
                   "rule",          "sigma0_measured"};
  for (const auto& target : analysis.targets) {
    if (!target.drift) continue;
    const auto& drift = *target.drift;
    table.rows.push_back({text(target.spec.name),
                          text(sweeps::name(drift.verdict)),
                          text(drift.reason),
                          number(drift.num_points),
                          number(drift.num_diverged),
                          drift.tolerance,
                          drift.sigma,
                          drift.lr.value,
                          drift.lr.ci.lo,
                          drift.lr.ci.hi,
                          drift.wd.value,
                          drift.wd.ci.lo,
                          drift.wd.ci.hi,
                          drift.tau.value,
                          drift.regret,
                          drift.regret_debiased,
                          drift.regret_upper,
                          drift.probability_within,
                          drift.gradient_p,
                          flag(drift.location_equivalent),
                          drift.lr_factor,
                          drift.wd_factor,
                          number(drift.more_runs),
                          target.config.sigma0_ratio,
                          text(models::name(target.spec.rule.rule)),
                          target.measured_sigma0 ? db::Value(*target.measured_sigma0) : db::Value()});
  }
  return table;
}

std::string measured_sigma0(const sweeps::TargetAnalysis& target) {
  return target.measured_sigma0 ? fmt::format("x{:.2f} measured", *target.measured_sigma0) : "not measured";
}

db::Table trend_table(const sweeps::Study& study, const sweeps::Analysis& analysis) {
  db::Table table;
  table.columns = {"rule",
                   "axis",
                   "num_targets",
                   "slope",
                   "slope_low",
                   "slope_high",
                   "rms",
                   "curvature_ratio_low",
                   "curvature_ratio_high",
                   "curvature_slope",
                   "regret_at_largest"};
  for (const auto& trend : sweeps::drift_trends(study, analysis)) {
    const auto& ratio = trend.curvature_ratio;
    table.rows.push_back({text(models::name(trend.rule)), text(sweeps::name(trend.axis)),
                          number(trend.num_targets), trend.slope, trend.ci.lo, trend.ci.hi, trend.rms,
                          ratio ? db::Value(ratio->lo) : db::Value(), ratio ? db::Value(ratio->hi) : db::Value(),
                          trend.curvature_slope, trend.regret_at_largest});
  }
  return table;
}

std::string drift_text(const sweeps::Study& study, const sweeps::Analysis& analysis,
                       std::optional<int> exit_code) {
  std::string result;
  for (const auto& target : analysis.targets) {
    if (!target.spec.drift) continue;
    if (result.empty()) {
      const std::string tolerance =
          study.drift.tolerance_nats > 0
              ? fmt::format("{:.4g} {}", study.drift.tolerance_nats,
                            sweeps::loss_unit(study.proxy.shape))
              : fmt::format("{:.3g}% of the target's loss", 100 * study.drift.tolerance_fraction);
      result = fmt::format("transfer check  rule={}  eps={}  D0={:.2f} oct LR / {:.2f} oct WD\n{}",
                           models::name(study.rule.rule), tolerance, study.drift.lr_shift,
                           study.drift.wd_shift, 
                           sweeps::drift_table_header(sweeps::loss_unit(study.proxy.shape)));
    }
    const std::string who = title(study, target.spec);
    result += target.drift ? fmt::format("\n{}", sweeps::describe(*target.drift, who))
                           : fmt::format("\n{}  not judged yet", who);
    result += fmt::format("\n{:<16} gradient noise sigma_0 against the proxy's: x{:.2f} predicted, {}", "",
                          target.config.sigma0_ratio, measured_sigma0(target));
  }
  if (const auto trends = sweeps::describe_trends(study, analysis); !trends.empty()) result += "\n" + trends;
  if (const auto verdicts = sweeps::describe_verdicts(study, analysis); !verdicts.empty()) {
    result += "\nsummary: " + verdicts;
    if (exit_code) result += fmt::format(" -> exit {}", *exit_code);
  }
  return result;
}

std::string targets_text(const sweeps::Study& study, const sweeps::Analysis& analysis) {
  if (analysis.targets.empty()) return "";
  db::Table table;
  table.columns = {"target", "moe", "loss at the transferred point", "SP at the proxy's values",
                   "difference"};
  for (const auto& target : analysis.targets) {
    const auto loss = [](const std::optional<sweeps::TrialResult>& trial) -> db::Value {
      if (!trial) return {};
      if (trial->loss && trial->floor)
        return fmt::format("{:.4f} ({:.4f} above the floor)", *trial->loss, *trial->loss - *trial->floor);
      if (trial->loss) return fmt::format("{:.4f}", *trial->loss);
      return std::string(sweeps::name(trial->state));
    };
    const bool both =
        target.transferred && target.transferred->loss && target.baseline && target.baseline->loss;
    table.rows.push_back(
        {title(study, target.spec), text(target.config.moe), loss(target.transferred), loss(target.baseline),
         both ? db::Value(fmt::format("{:+.4f}", *target.transferred->loss - *target.baseline->loss))
              : db::Value()});
  }
  auto result = format_table(table, Format::table);
  result.pop_back();
  return result;
}

std::string summary_text(const sweeps::Study& study, const sweeps::Analysis& analysis) {
  std::string result = fit_text(study, analysis);
  std::optional<int> exit_code;
  if (analysis.stage == sweeps::Stage::done) exit_code = analysis.exit_code;
  for (const auto& part : {targets_text(study, analysis), drift_text(study, analysis, exit_code)})
    if (!part.empty()) result += "\n\n" + part;
  if (!analysis.notes.empty()) result += "\n";
  for (const auto& note : analysis.notes)
    if (result.find(note) == std::string::npos) result += "\n" + note;  // a fit that failed says so itself
  return result;
}

}  // namespace orchestrator
