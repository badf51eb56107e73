#include "orchestrator/report_tables.h"

#include <cmath>
#include <set>
#include <sstream>

#include <fmt/format.h>

#include "orchestrator/svg.h"
#include "sweeps/drift_summary.h"

namespace orchestrator {
namespace {

using sweeps::TargetAnalysis;
using sweeps::TrialResult;
using sweeps::TrialState;

/// Rows of cells that are HTML already.
class Table {
 public:
  explicit Table(const std::vector<std::string>& heads) {
    html_ = "<table><thead><tr>";
    for (const auto& head : heads) html_ += "<th>" + head + "</th>";
    html_ += "</tr></thead><tbody>\n";
  }
  void row(const std::vector<std::string>& cells) {
    html_ += "<tr>";
    for (const auto& cell : cells) html_ += "<td>" + cell + "</td>";
    html_ += "</tr>\n";
  }
  std::string str() const { return "<div class=\"wide\">" + html_ + "</tbody></table></div>\n"; }

 private:
  std::string html_;
};

std::string note(std::string_view text) { return fmt::format("<p class=\"note\">{}</p>\n", escape(text)); }

std::string beneath(const std::string& value, const std::string& small) {
  return fmt::format("{}<br><small>{}</small>", value, small);
}

std::string count(double number) {
  if (number >= 1e9) return fmt::format("{:.3g} G", number / 1e9);
  if (number >= 1e6) return fmt::format("{:.3g} M", number / 1e6);
  if (number >= 1e3) return fmt::format("{:.3g} k", number / 1e3);
  return fmt::format("{:g}", number);
}

std::string outcome(const TrialResult& trial) {
  switch (trial.state) {
    case TrialState::complete: return fmt::format("{:.5f}", trial.loss.value_or(NAN));
    case TrialState::diverged:
      return fmt::format("<span class=\"bad\">diverged</span> at step {}", trial.diverged_step.value_or(0));
    default: return std::string(name(trial.state));
  }
}

std::string loss_cell(const TrialResult& trial) {
  if (!trial.loss || !trial.floor) return outcome(trial);
  return beneath(outcome(trial), fmt::format("{:.4f} above the floor", *trial.loss - *trial.floor));
}

std::string difference(const TargetAnalysis& target) {
  if (!target.baseline || !target.transferred || !target.baseline->loss || !target.transferred->loss)
    return "–";
  const double gain = *target.baseline->loss - *target.transferred->loss;
  return fmt::format("<span class=\"{}\">{:+.4f}</span>", gain >= 0 ? "good" : "bad", -gain);
}

std::string octaves(const sweeps::Estimate& estimate) {
  return beneath(fmt::format("{:+.2f}", estimate.value),
                 fmt::format("[{:+.2f}, {:+.2f}]", estimate.ci.lo, estimate.ci.hi));
}

std::vector<std::string> drift_row(const TargetAnalysis& target) {
  const auto& report = *target.drift;
  const std::string name = beneath(fmt::format("<b>{}</b>", escape(target.spec.name)),
                                   fmt::format("rule {}", models::name(target.spec.rule.rule)));
  const std::string runs = fmt::format("{} ({})", report.num_points, report.num_diverged);
  std::string verdict = badge(report.verdict) + fmt::format("<br><small>{}</small>", escape(report.reason));
  if (report.prior_conflict)
    verdict += "<br><small>curvature unlike the proxy&#39;s, whose shape was not used</small>";
  const std::string more = report.more_runs > 0 ? fmt::format("about {}", report.more_runs) : "–";
  if (!report.fit) return {name, runs, "–", "–", "–", "–", "–", "–", verdict, more};
  return {name,
          runs,
          octaves(report.lr),
          octaves(report.wd),
          octaves(report.tau),
          octaves(report.lr_from_proxy),
          beneath(fmt::format("{:.4f}", report.regret),
                  fmt::format("95 %: ≤ {:.4f}<br>tolerance {:.4f}", report.regret_upper, report.tolerance)),
          fmt::format("{:.3f}", report.probability_within),
          verdict,
          more};
}

/// The trend over the targets of each rule, and how many verdicts of each kind.
std::string drift_summary(const sweeps::Study& study, const sweeps::Analysis& analysis) {
  std::string html;
  std::istringstream trends(sweeps::describe_trends(study, analysis));
  for (std::string line; std::getline(trends, line);) html += fmt::format("<p>{}</p>\n", escape(line));
  if (const auto verdicts = sweeps::describe_verdicts(study, analysis); !verdicts.empty())
    html += fmt::format("<p>summary: {}{}</p>\n", escape(verdicts),
                        analysis.stage == sweeps::Stage::done
                            ? fmt::format(" → exit {}", analysis.exit_code)
                            : "");
  return html;
}

std::string factor(double value, double times) {
  return beneath(fmt::format("{:.4g}", value), fmt::format("× {:.4g}", times));
}

std::string init_std(const sweeps::TransferRow& row) {
  const bool gain = row.group == models::TensorGroup::norm || row.group == models::TensorGroup::final_norm;
  return gain ? "ones" : factor(row.init_std, row.factor.init_std);
}

std::string factor_table(const sweeps::TargetConfig& config) {
  Table table({"tensor group", "init std", "LR", "WD", "eps", "beta1, beta2", "forward", "source"});
  for (const auto& row : config.rows)
    table.row({fmt::format("<b>{}</b>", name(row.group)), init_std(row), factor(row.lr, row.factor.lr),
               row.decays ? factor(row.wd, row.factor.wd) : "not decayed", factor(row.eps, row.factor.eps),
               beneath(fmt::format("{:.5g}, {:.5g}", row.beta1, row.beta2),
                       fmt::format("1−β × {:.4g}", row.factor.one_minus_beta)),
               fmt::format("× {:.4g}", row.factor.forward), "<small>" + escape(row.source) + "</small>"});
  return table.str();
}

}  // namespace

std::string badge(sweeps::Verdict verdict) {
  const int code = sweeps::exit_code(verdict);
  return fmt::format("<span class=\"badge {}\">{}</span>",
                     code == 0   ? "pass"
                     : code == 3 ? "drift"
                                 : "open",
                     escape(sweeps::name(verdict)));
}

std::string noise_cell(const TargetAnalysis& target) {
  return beneath(fmt::format("× {:.3g}", target.config.sigma0_ratio),
                 target.measured_sigma0 ? fmt::format("measured × {:.3g}", *target.measured_sigma0) : "not measured");
}

std::string targets_section(const sweeps::Study& study, const sweeps::Analysis& analysis) {
  if (analysis.targets.empty())
    return note("No target has been planned: there is no optimum yet, or the study names none.");
  Table table({"target", "model", "parameters", "steps × batch",
               "noise level σ₀<br><small>against the proxy:<br>predicted, measured</small>", "loss at the<br>transferred point",
               "same shape<br>under SP",
               fmt::format("difference,<br>{}", sweeps::loss_unit(study.proxy.shape))});
  for (const auto& target : analysis.targets) {
    const auto& run = target.spec.run;
    const auto parameters = models::count_parameters(run.shape);
    table.row(
        {beneath(fmt::format("<b>{}</b>", escape(target.spec.name)),
                 fmt::format("rule {}", models::name(target.spec.rule.rule))),
         beneath(escape(target.config.moe), fmt::format("d {}, L {}", run.shape.width, run.shape.depth)),
         beneath(count(static_cast<double>(parameters.total)),
                 count(static_cast<double>(parameters.active)) + " active"),
         fmt::format("{} × {}", run.steps, run.batch), noise_cell(target),
         target.transferred ? loss_cell(*target.transferred) : "–",
         target.baseline ? loss_cell(*target.baseline) : "–", difference(target)});
  }
  return table.str();
}

std::string drift_section(const sweeps::Study& study, const sweeps::Analysis& analysis) {
  Table table({"target", "runs<br>(diverged)", "LR moved,<br>octaves", "WD moved,<br>octaves",
               "τ moved,<br>octaves", "LR, from the<br>proxy&#39;s optimum", fmt::format("regret,<br>{}", sweeps::loss_unit(study.proxy.shape)),
               "P(regret &lt;<br>tolerance)", "verdict", "runs still<br>needed"});
  bool asked = false, judged = false;
  for (const auto& spec : study.targets) asked = asked || spec.drift;
  if (!asked) return note("No target asks for a drift check.");
  std::string waiting = analysis.targets.empty() ? note("There is no transferred point to check yet.") : "";
  for (const auto& target : analysis.targets) {
    if (!target.spec.drift) continue;
    if (target.drift)
      table.row(drift_row(target));
    else
      waiting += note(target.spec.name + ": its drift design is still being trained.");
    judged = judged || target.drift;
  }
  return (judged ? table.str() : "") + waiting + drift_summary(study, analysis) +
         note(fmt::format(
             "Intervals are 95 %. Equivalence bounds: {} octaves of LR, {} of WD. PASS: the 95 % upper "
             "bound of the regret is below the tolerance. DRIFT: the regret is proven to be above it. Rules "
             "other than the study's own, {}, are there to compare with and do not decide the exit code.",
             study.drift.lr_shift, study.drift.wd_shift, models::name(study.rule.rule)));
}

std::string factors_section(const sweeps::Study& study, const sweeps::Analysis& analysis) {
  if (analysis.targets.empty()) return note("Nothing has been transferred yet.");
  std::string html = fmt::format(
      "<p>Rule <b>{}</b>; weight decay under width: {}; head: {}. Each value is the proxy&#39;s optimum "
      "times the "
      "factor beneath it.</p>\n",
      models::name(study.rule.rule), models::name(study.rule.wd_width), models::name(study.rule.head));
  for (const auto& target : analysis.targets)
    html += fmt::format(
        "<h3>{} <small>{}, rule {}, route scale R = {:.4g}, branch multiplier {:.4g}</small></h3>\n{}",
        escape(target.spec.name), escape(target.config.moe), models::name(target.config.rule.rule),
        target.config.route_scale, target.config.branch_scale, factor_table(target.config));
  return html;
}

std::vector<const TrialResult*> all_trials(const sweeps::Analysis& analysis) {
  std::vector<const TrialResult*> trials;
  std::set<sweeps::TrialKey> seen;
  const auto add = [&](const TrialResult& trial) {
    if (seen.insert(trial.key).second) trials.push_back(&trial);
  };
  for (const auto& row : analysis.scan)
    for (const auto& trial : row.trials) add(trial);
  for (const auto& trial : analysis.sweep) add(trial);
  for (const auto& target : analysis.targets) {
    if (target.transferred) add(*target.transferred);
    if (target.baseline) add(*target.baseline);
    for (const auto& trial : target.around) add(trial);
  }
  return trials;
}

std::string trials_section(const sweeps::Analysis& analysis) {
  Table table({"trial", "role", "LR", "WD", "init std", "state", "loss", "seconds", "device"});
  for (const auto* trial : all_trials(analysis)) {
    const auto& base = trial->spec.base;
    std::string state(name(trial->state));
    if (!trial->message.empty()) state += fmt::format("<br><small>{}</small>", escape(trial->message));
    table.row(
        {escape(trial->spec.name), std::string(name(trial->spec.role)), fmt::format("{}", base.lr),
         fmt::format("{}", base.wd), fmt::format("{}", base.init_std), state,
         trial->state == TrialState::complete || trial->state == TrialState::diverged ? outcome(*trial) : "–",
         trial->seconds ? fmt::format("{:.1f}", *trial->seconds) : "–", escape(trial->device)});
  }
  return "<details><summary>Every trial of this study</summary>\n" + table.str() + "</details>\n";
}

}  // namespace orchestrator
