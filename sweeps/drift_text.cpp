#include <stdexcept>

#include <fmt/format.h>

#include "sweeps/drift.h"

// A drift report in words, fit-and-drift 4.5.
namespace sweeps {

std::string drift_table_header(std::string_view loss_unit) {
  return fmt::format("{:<16} {:<9} {:<21} {:<21} {:<7} {:<19} {:<8} {}", "target", "runs(div)",
                     "dLR oct [95%]", "dWD oct [95%]", "dtau",
                     fmt::format("regret {} [<=95%]", loss_unit), "P(R<eps)", "verdict");
}

std::string describe(const DriftReport& report, const std::string& target) {
  const std::string runs = fmt::format("{} ({})", report.num_points, report.num_diverged);
  std::string verdict = fmt::format("{} ({})", name(report.verdict), report.reason);
  if (report.more_runs > 0)
    verdict += fmt::format("; about {} more run{}", report.more_runs, report.more_runs == 1 ? "" : "s");
  if (report.prior_conflict) verdict += "; curvature unlike the proxy's, which was not used";
  if (!report.fit)
    return fmt::format("{:<16} {:<9} {:<21} {:<21} {:<7} {:<19} {:<8} {}", target, runs, "-", "-", "-", "-",
                       "-", verdict);
  const auto shift = [](const Estimate& e) {
    return fmt::format("{:+.2f} [{:+.2f},{:+.2f}]", e.value, e.ci.lo, e.ci.hi);
  };
  return fmt::format("{:<16} {:<9} {:<21} {:<21} {:<7} {:<19} {:<8.3f} {}", target, runs, shift(report.lr),
                     shift(report.wd), fmt::format("{:+.2f}", report.tau.value),
                     fmt::format("{:.4f} [<={:.4f}]", report.regret, report.regret_upper),
                     report.probability_within, verdict);
}

std::string_view name(Verdict verdict) {
  switch (verdict) {
    case Verdict::pass: return "PASS";
    case Verdict::drift: return "DRIFT";
    case Verdict::not_bracketed: return "NOT BRACKETED";
    case Verdict::inconclusive: return "INCONCLUSIVE";
    case Verdict::unusable: return "UNUSABLE";
  }
  throw std::logic_error("name: unknown Verdict");
}

int exit_code(Verdict verdict) {
  switch (verdict) {
    case Verdict::pass: return 0;
    case Verdict::drift: return 3;
    case Verdict::not_bracketed:
    case Verdict::inconclusive:
    case Verdict::unusable: return 4;
  }
  throw std::logic_error("exit_code: unknown Verdict");
}

}  // namespace sweeps
