#include "orchestrator/report.h"

#include <cmath>
#include <map>

#include <fmt/format.h>

#include "orchestrator/report_charts.h"
#include "orchestrator/report_samples.h"
#include "orchestrator/report_style.h"
#include "orchestrator/report_tables.h"
#include "orchestrator/svg.h"

namespace orchestrator {
namespace {

using sweeps::Analysis;
using sweeps::Stage;
using sweeps::Study;

const sweeps::Optimum* fit_of(const Analysis& analysis) {
  return analysis.fit ? std::get_if<sweeps::Optimum>(&*analysis.fit) : nullptr;
}

std::string section(std::string_view id, std::string_view title, const std::string& body) {
  return fmt::format("<section id=\"{}\">\n<h2>{}</h2>\n{}</section>\n", id, escape(title), body);
}

std::string_view meaning(int exit_code) {
  switch (exit_code) {
    case 0: return "done; every gate passed";
    case 1: return "some trials failed after their retries";
    case 3: return "a gate failed: an optimum drifted and the drift is costly";
    case 4: return "no verdict yet; the remarks say what would settle it";
    default: return "see the program's messages";
  }
}

std::string card(std::string_view label, const std::string& value, const std::string& small) {
  return fmt::format(
      "<div class=\"card\"><div class=\"label\">{}</div><div class=\"value\">{}</div><div>{}</div></div>\n",
      escape(label), value, small);
}

std::string log_interval(const sweeps::Interval& octaves) {
  return fmt::format("95 %: {:.3g} … {:.3g}", std::exp2(octaves.lo), std::exp2(octaves.hi));
}

std::string optimum_cards(const Analysis& analysis) {
  if (!analysis.optimum) return card("optimum", "–", "not fitted yet");
  const auto& fit = *fit_of(analysis);
  const auto bracketed = [](bool yes) { return yes ? "bracketed" : "not bracketed"; };
  std::string html = card("learning rate", fmt::format("{:.4g}", analysis.optimum->lr),
                          log_interval(fit.lr.ci) + ", " + bracketed(fit.bracketed()));
  html += card("weight decay", fmt::format("{:.4g}", analysis.optimum->wd),
               fit.wd_fitted ? log_interval(fit.wd.ci) + ", " + bracketed(fit.wd.bracketed) : "not fitted");
  html += card("initial std", fmt::format("{:.4g}", analysis.init_std),
               analysis.scan.empty() ? "given" : fmt::format("best of {} scanned", analysis.scan.size()));
  return html;
}

std::string target_card(const sweeps::TargetAnalysis& target) {
  const bool trained = target.transferred && target.transferred->loss;
  const std::string loss =
      trained ? fmt::format("loss {:.4f}", *target.transferred->loss) : "not trained yet";
  if (target.drift) return card(target.spec.name, badge(target.drift->verdict), loss);
  return card(target.spec.name, trained ? fmt::format("{:.4f}", *target.transferred->loss) : "–",
              trained ? target.spec.drift ? "loss; drift check under way" : "loss at the transferred point"
                      : "not trained yet");
}

std::string summary(const Study& study, const Analysis& analysis) {
  const bool done = analysis.stage == Stage::done;
  std::string html = fmt::format(
      "<p class=\"lead {}\"><b>{}</b> {}</p>\n", done ? fmt::format("exit{}", analysis.exit_code) : "open",
      done ? fmt::format("Exit code {}:", analysis.exit_code) : "Unfinished:",
      done ? std::string(meaning(analysis.exit_code))
           : fmt::format("stage “{}”, {} trials to go", name(analysis.stage), analysis.missing.size()));
  html += "<div class=\"cards\">\n" + optimum_cards(analysis);
  for (const auto& target : analysis.targets) html += target_card(target);
  html += "</div>\n";
  if (!analysis.notes.empty()) {
    html += "<h3>Remarks</h3>\n<ul>\n";
    for (const auto& text : analysis.notes) html += fmt::format("<li>{}</li>\n", escape(text));
    html += "</ul>\n";
  }
  return html + fmt::format("<p class=\"note\">Tolerance: {}.</p>\n",
                            study.drift.tolerance_nats > 0
                                ? fmt::format("{} {}", study.drift.tolerance_nats, sweeps::loss_unit(study.proxy.shape))
                                : fmt::format("{:.4g} % of the target&#39;s loss",
                                              study.drift.tolerance_fraction * 100));
}

std::string horizons(const Analysis& analysis) {
  const auto text = sweeps::describe_horizons(analysis);
  return text.empty() ? "" : fmt::format("<pre>{}</pre>\n", escape(text));
}

std::string fit_text(const Study& study, const Analysis& analysis) {
  if (!analysis.fit) return "<p class=\"note\">The fit follows when the sweep has ended.</p>\n";
  if (const auto* fit = fit_of(analysis))
    return fmt::format("<pre>{}</pre>\n", escape(sweeps::describe(*fit, "proxy", study.proxy.steps))) +
           horizons(analysis);
  const auto* few = std::get_if<sweeps::TooFewTrials>(&*analysis.fit);
  const std::string why = few ? few->message : std::get<sweeps::RankDeficient>(*analysis.fit).message;
  return fmt::format("<p class=\"bad\">No optimum: {}</p>\n", escape(why));
}

std::string counts(const Analysis& analysis) {
  std::map<sweeps::TrialState, int> by_state;
  double seconds = 0;
  for (const auto* trial : all_trials(analysis)) {
    ++by_state[trial->state];
    seconds += trial->seconds.value_or(0);
  }
  std::string text;
  for (const auto& [state, count] : by_state)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, name(state));
  return fmt::format("{}; {:.0f} s of training in all", text, seconds);
}

std::string provenance(const Study& study, const Analysis& analysis) {
  std::string html = "<dl>\n";
  const auto item = [&](std::string_view term, const std::string& text) {
    html += fmt::format("<dt>{}</dt><dd>{}</dd>\n", escape(term), escape(text));
  };
  item("study", study.name);
  item("seed", fmt::format("{}", study.seed));
  item("hash of the study", study.hash);
  item("data", fmt::format("{}, fingerprint {}", name(study.data.source), study.data.fingerprint));
  item("trials", counts(analysis));
  item("program", "tuneonce " TUNEONCE_VERSION);
  item("exit codes", "0 every gate passed · 1 failed trials · 3 DRIFT · 4 no verdict yet");
  return html + fmt::format(
                    "</dl>\n<details><summary>The study, every default filled in</summary>\n<pre>{}</pre>\n"
                    "</details>\n",
                    escape(study.text));
}

}  // namespace

std::string render_report(const Study& study, const Analysis& analysis, const Curves& curves,
                          const Samples& samples) {
  const std::string title = escape(study.name);
  std::string body = section("summary", "Verdict", summary(study, analysis));
  body += section("proxy", "Proxy: the sweep and its optimum",
                  heat_map_section(analysis) + fit_text(study, analysis));
  body += section("lr", "Loss against learning rate", lr_section(analysis));
  body += section("drift", "Drift", drift_section(study, analysis));
  body += section("targets", "Targets against standard parameterization", targets_section(study, analysis));
  if (const auto pictures = samples_section(analysis, samples); !pictures.empty())
    body += section("samples", "Pictures the targets draw", pictures);
  body += section("init-std", "Initial std", scan_section(study, analysis));
  body += section("curves", "Learning curves", curves_section(analysis, curves));
  body += section("factors", "Transfer factors", factors_section(study, analysis));
  body += section("trials", "Trials", trials_section(analysis));
  body += section("provenance", "Provenance", provenance(study, analysis));
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{0} · tuneonce</title>\n<style>\n{1}</style>\n</head>\n<body>\n<main>\n"
      "<header><h1>{0}</h1><p class=\"note\">tuneonce: tune dense once, transfer to all</p></header>\n{2}"
      "</main>\n</body>\n</html>\n",
      title, kReportStyle, body);
}

}  // namespace orchestrator
