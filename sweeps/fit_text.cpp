#include <cmath>

#include <fmt/format.h>

#include "sweeps/fit.h"

// The printout of a fit, fit-and-drift 2.3.
namespace sweeps {
namespace {

/// Two digits, the way people write learning rates.
std::string rate(double value) {
  return value < 0.01 ? fmt::format("{:.1e}", value) : fmt::format("{:.2g}", value);
}
std::string rate_of_log2(double octaves) { return rate(std::exp2(octaves)); }

std::string header_line(const Optimum& fit, const std::string& label) {
  std::string line = fmt::format("{}  n={} ok", label, fit.num_points);
  if (fit.num_diverged > 0) line += fmt::format(", {} diverged", fit.num_diverged);
  if (fit.diverged_at) line += fmt::format(" (LR>={})", rate_of_log2(*fit.diverged_at));
  return line + fmt::format(", sigma={:.4f} {} ({}, df {:.1f}), k={:+.2f}+-{:.2f}, Neff={:.1f}", fit.sigma,
                            fit.loss_unit, fit.sigma_source, fit.df, fit.k, fit.k_sd, fit.n_eff);
}

std::string edges(const AxisOptimum& axis) {
  if (axis.bracketed) return "bracketed";
  if (axis.edge_low > axis.edge_high) return fmt::format("not identified below {}", rate_of_log2(axis.ci.lo));
  return fmt::format("not identified above {}", rate_of_log2(axis.ci.hi));
}

std::string axis_line(const char* name, const AxisOptimum& axis, const std::string& comment) {
  return fmt::format("  {:<14} {:<10} {:<20} {:>7.2f}     {:.2f} oct   {}", name, rate_of_log2(axis.estimate),
                     fmt::format("[{}, {}]", rate_of_log2(axis.ci.lo), rate_of_log2(axis.ci.hi)),
                     axis.estimate, (axis.ci.hi - axis.ci.lo) / 2, comment);
}

std::string lr_comment(const Optimum& fit) {
  if (fit.guarded) return "not bracketed: far from the best trial, which is reported instead";
  if (fit.best_on_edge) return "not bracketed: the best trial lies on the edge";
  return fit.lr.bracketed ? "bracketed" : "not bracketed: " + edges(fit.lr);
}

std::string tau_line(const Optimum& fit, std::int64_t steps) {
  const auto value = [&](double octaves) {
    return steps > 0 ? rate(std::exp2(octaves) / static_cast<double>(steps))
                     : fmt::format("{:.0f}", std::exp2(octaves));
  };
  return fmt::format("  {:<14} {:<10} [{}, {}]", steps > 0 ? "tau*/steps" : "tau* in steps",
                     value(fit.log2_tau.estimate), value(fit.log2_tau.ci.lo), value(fit.log2_tau.ci.hi));
}

std::string best_line(const Optimum& fit) {
  const double gap = fit.best_observed.loss - fit.best_loss;
  return fmt::format("  {:<14} {:.4f}     (observed best {:.4f} at LR {} WD {}{})", "best loss",
                     fit.best_loss, fit.best_observed.loss, rate_of_log2(fit.best_observed.x),
                     rate_of_log2(fit.best_observed.y),
                     std::abs(gap) <= 2 * fit.sigma ? ", same within noise" : "");
}

std::string near_line(const Optimum& fit) {
  std::string line = fmt::format("  near-optimal box (regret<={:.4g} {}, 95%):  ", fit.regret_tolerance, fit.loss_unit);
  if (!(fit.near_lr.hi > fit.near_lr.lo)) return line + "none yet";
  line += fmt::format("LR {}..{}", rate_of_log2(fit.near_lr.lo), rate_of_log2(fit.near_lr.hi));
  if (fit.wd_fitted)
    line += fmt::format(", WD {}..{}", rate_of_log2(fit.near_wd.lo), rate_of_log2(fit.near_wd.hi));
  return line;
}

std::string curvature_line(const Optimum& fit) {
  std::string line = fmt::format("  {:<14} hLR={:.4f}", "curvature", fit.hx);
  if (fit.wd_fitted) {
    line += fmt::format(" hWD={:.4f}", fit.hy);
    if (fit.hx > 0 && fit.hy > 0) line += fmt::format(" corr={:+.2f}", fit.hxy / std::sqrt(fit.hx * fit.hy));
  }
  return line + fmt::format("   1 octave LR error costs {:.4f}..{:.4f} {} (low side..high side)",
                            fit.one_octave_low, fit.one_octave_high, fit.loss_unit);
}

}  // namespace

std::string describe(const Optimum& fit, const std::string& label, std::int64_t steps) {
  std::string text = header_line(fit, label);
  text += fmt::format("\n  {:<14} {:<10} {:<20} {:>7}     {}", "", "estimate", "95% CI", "log2",
                      "95% half-width");
  text += '\n' + axis_line("LR*", fit.lr, lr_comment(fit));
  if (fit.wd_fitted)
    text += '\n' + axis_line("WD*", fit.wd, edges(fit.wd)) + '\n' + tau_line(fit, steps);
  else
    text +=
        fmt::format("\n  {:<14} {:<10} was not fitted: one WD level, or too few trials for two dimensions",
                    "WD", rate_of_log2(fit.wd.estimate));
  for (const std::string& line : {best_line(fit), near_line(fit), curvature_line(fit)}) text += '\n' + line;
  const bool clean = fit.notes.empty() && fit.bracketed();
  text += clean ? "\n  checks: no outliers, no edge" : "";
  for (const std::string& note : fit.notes) text += "\n  check: " + note;
  return text;
}

}  // namespace sweeps
