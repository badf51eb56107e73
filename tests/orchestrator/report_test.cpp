#include "orchestrator/report.h"

#include <algorithm>
#include <cmath>
#include <regex>

#include <fmt/format.h>

#include "orchestrator/chart_frame.h"
#include "orchestrator/chart_heat_map.h"
#include "orchestrator/chart_lines.h"
#include "orchestrator/chart_lr.h"
#include "orchestrator/png.h"
#include "orchestrator/report_charts.h"
#include "orchestrator/report_samples.h"
#include "orchestrator/svg.h"
#include "tests/support/catch.h"
#include "tests/support/synthetic.h"

using namespace orchestrator;
using namespace sweeps;
using synthetic::World;

namespace {

Curves curves_of(const std::vector<TrialResult>& results) {
  Curves curves;
  for (const auto& result : results) {
    if (!result.loss) continue;
    CurveSeries train{"train_loss", {}, {}}, eval{"eval_loss", {50, 100}, {*result.loss + 1, *result.loss}};
    for (int step = 1; step <= 100; ++step) {
      train.steps.push_back(step);
      train.values.push_back(*result.loss + 2 * std::exp(-step / 10.0));
    }
    curves[result.key] = {train, eval};
  }
  return curves;
}

struct Rendered {
  Study study;
  Analysis analysis;
  std::string html;
};
Rendered rendered(const World& world, Study study = synthetic::study()) {
  std::vector<TrialResult> results;
  const auto analysis = synthetic::run(study, world, results);
  return {study, analysis, render_report(study, analysis, curves_of(results))};
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t number = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++number;
  return number;
}

std::string section(const std::string& html, const std::string& id) {
  const auto begin = html.find(fmt::format("<section id=\"{}\"", id));
  REQUIRE(begin != std::string::npos);
  return html.substr(begin, html.find("</section>", begin) - begin);
}

/// Every element that is opened is closed, in order.
bool well_formed(const std::string& html) {
  static const std::regex tag("<(/?)([a-z0-9]+)[^>]*?(/?)>");
  static const std::vector<std::string> empty = {"meta", "br"};
  std::vector<std::string> open;
  const auto body = html.substr(html.find("<body>"));
  for (auto match = std::sregex_iterator(body.begin(), body.end(), tag); match != std::sregex_iterator();
       ++match) {
    const std::string name = (*match)[2];
    if ((*match)[3].length() > 0 || std::find(empty.begin(), empty.end(), name) != empty.end()) continue;
    if ((*match)[1].length() == 0) {
      open.push_back(name);
    } else {
      if (open.empty() || open.back() != name) {
        // <body> is opened here, <html> before.
        if (name == "html" && open.empty()) continue;
        UNSCOPED_INFO("</" << name << "> does not close <" << (open.empty() ? "" : open.back()) << ">");
        return false;
      }
      open.pop_back();
    }
  }
  return open.empty();
}

}  // namespace

TEST_CASE("a report has every section, whatever the stage", "[orchestrator][report]") {
  const auto study = synthetic::study();
  std::vector<TrialResult> some;
  for (const auto& spec : analyse(study, {}).missing) some.push_back(World{}.train(spec));
  const std::vector<std::string> pages = {render_report(study, analyse(study, {}), {}),
                                          render_report(study, analyse(study, some), {}), rendered({}).html};
  for (const auto& html : pages) {
    for (const auto id : {"summary", "proxy", "lr", "drift", "targets", "init-std", "curves", "factors",
                          "trials", "provenance"})
      CHECK_FALSE(section(html, id).empty());
    CHECK(well_formed(html));
    CHECK_FALSE(std::regex_search(html, std::regex("\\b(nan|inf)\\b")));
  }
}

TEST_CASE("a report opens without a network: nothing is loaded from elsewhere", "[orchestrator][report]") {
  const auto html = rendered({}).html;
  for (const auto part : {"http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link"})
    CHECK(html.find(part) == std::string::npos);
}

TEST_CASE("the report shows what each target draws, and nothing is said where none has drawn",
          "[orchestrator][report]") {
  const auto page = rendered({});
  CHECK(page.html.find("<section id=\"samples\"") == std::string::npos);
  Samples samples;
  for (const auto& target : page.analysis.targets)
    samples[target.transferred->key] = {2, 2, 1, std::vector<std::uint8_t>(36, 9), {1, 2, 3, 4}};
  samples["of another trial"] = {1, 1, 1, {1}, {}};
  const auto html = render_report(page.study, page.analysis, {}, samples);
  CHECK(well_formed(html));
  const auto drawn = section(html, "samples");
  CHECK(count(drawn, "src=\"data:image/png;base64,iVBOR") == 2 * page.analysis.targets.size());
  CHECK(count(html, "src=") == count(drawn, "src=\"data:image/png"));
  for (const auto& target : page.analysis.targets)
    CHECK_THAT(drawn, ContainsSubstring("Drawn by " + target.spec.name + ": 9 pictures"));
}

TEST_CASE("a contact sheet lays pictures out in rows with a line between", "[orchestrator][report]") {
  const sweeps::SampleSheet sheet{1, 1, 1, {10, 20, 30}, {}};
  const std::vector<std::uint8_t> pixels = {10, 128, 20, 128, 128, 128, 30, 128, 128};
  CHECK(contact_sheet(sheet, sheet.drawn, 3, 2) == png(3, 3, 1, pixels));
  const sweeps::SampleSheet colours{2, 1, 3, {1, 2, 3, 4, 5, 6}, {}};
  const std::vector<std::uint8_t> interleaved = {1, 3, 5, 2, 4, 6};
  CHECK(contact_sheet(colours, colours.drawn, 1, 1) == png(2, 1, 3, interleaved));
}

TEST_CASE("text of the study cannot break out of the page", "[orchestrator][report]") {
  auto study = synthetic::study();
  study.name = "<script>alert(\"1\")</script>";
  study.text += "# </pre><b>\n";
  auto analysis = synthetic::run(study, {});
  analysis.notes.push_back("a < b & c");
  analysis.sweep[0].message = "<img>";
  const auto html = render_report(study, analysis, {});
  CHECK(html.find("<script") == std::string::npos);
  CHECK(html.find("&lt;script&gt;alert(&quot;1&quot;)") != std::string::npos);
  CHECK(html.find("a &lt; b &amp; c") != std::string::npos);
  CHECK(html.find("<img>") == std::string::npos);
  CHECK(well_formed(html));
}

TEST_CASE("the verdict stands at the top, with the exit code and its meaning", "[orchestrator][report]") {
  const auto pass = section(rendered({}).html, "summary");
  CHECK_THAT(pass, ContainsSubstring("Exit code 0:") && ContainsSubstring("badge pass\">PASS"));
  const auto drift = section(rendered({.lr_drift = {{"8e2a1s", -2}}}).html, "summary");
  CHECK_THAT(drift, ContainsSubstring("Exit code 3:") && ContainsSubstring("badge drift\">DRIFT"));
  const auto study = synthetic::study();
  CHECK_THAT(section(render_report(study, analyse(study, {}), {}), "summary"),
             ContainsSubstring("Unfinished:") && ContainsSubstring("stage “scan”, 9 trials to go"));
}

TEST_CASE("the heat map shows each cell's loss, the optimum and its region", "[orchestrator][report]") {
  const auto page = rendered({});
  const auto proxy = section(page.html, "proxy");
  for (const auto& trial : page.analysis.sweep)
    CHECK_THAT(proxy, ContainsSubstring(fmt::format(">{:.4f}<", *trial.loss)));
  CHECK(count(proxy, "class=\"region\"") >= 1);
  CHECK(count(proxy, "class=\"cross\"") >= 2);
  CHECK_THAT(proxy, ContainsSubstring("LR*"));  // the printed fit
}

TEST_CASE("a diverged cell is hatched and has no loss", "[orchestrator][report]") {
  const auto calm = section(rendered({}).html, "proxy");
  const auto wild = section(rendered({.diverges_at = -6.2}).html, "proxy");
  CHECK(count(calm, "cell diverged") == 1);  // the legend's
  CHECK(count(wild, "cell diverged") == 1 + 3);
  CHECK(count(wild, "class=\"hatch\"") > 3 * count(calm, "class=\"hatch\""));
  CHECK(count(wild, ">diverged</text>") == 1 + 3);
}

TEST_CASE("a sweep that is under way shows the cells to come", "[orchestrator][report]") {
  auto study = synthetic::study();
  study.space.init_std.clear();
  const auto html = render_report(study, analyse(study, {}), {});
  CHECK(count(section(html, "proxy"), ">waiting</text>") == 15);
}

TEST_CASE("points of a random search that overlap become dots", "[orchestrator][report]") {
  auto study = synthetic::study();
  study.search.method = SearchMethod::random;
  study.search.max_trials = 80;
  const auto html = rendered({}, study).html;
  CHECK(count(section(html, "proxy"), "class=\"dot\"") == 80);
}

TEST_CASE("each model has its loss against LR, with optimum, interval and transferred point",
          "[orchestrator][report]") {
  const auto lr = section(rendered({}).html, "lr");
  CHECK(count(lr, "<svg") == 4);  // all models together, then each
  CHECK(count(lr, "class=\"fit\"") >= 2);  // the proxy's and that of the target with a drift check
  CHECK(count(lr, "class=\"ci\"") == 2);
  CHECK(count(lr, "class=\"transferred\"") == 3);
  CHECK(count(lr, "class=\"ring\"") == 2);
  CHECK(count(lr, "class=\"baseline\"") == 2);
}

TEST_CASE("the table of factors has a row for each group of each target", "[orchestrator][report]") {
  const auto page = rendered({});
  const auto factors = section(page.html, "factors");
  for (const auto& target : page.analysis.targets)
    for (const auto& row : target.config.rows)
      CHECK_THAT(factors, ContainsSubstring(fmt::format("<b>{}</b>", models::name(row.group))));
  CHECK(count(factors, "<tr>") ==
        2 + page.analysis.targets[0].config.rows.size() + page.analysis.targets[1].config.rows.size());
  CHECK_THAT(factors, ContainsSubstring("× 0.3333") && ContainsSubstring("Complete-muE"));
}

TEST_CASE("the drift table gives octaves, intervals, regret and verdict", "[orchestrator][report]") {
  const auto page = rendered({});
  const auto& report = *page.analysis.targets[1].drift;
  const auto drift = section(page.html, "drift");
  CHECK_THAT(drift, ContainsSubstring(fmt::format("{:+.2f}", report.lr.value)));
  CHECK_THAT(drift, ContainsSubstring(fmt::format("[{:+.2f},", report.lr.ci.lo)));
  CHECK_THAT(drift, ContainsSubstring(fmt::format("{:.4f}", report.regret_upper)));
  CHECK_THAT(drift, ContainsSubstring("PASS"));
  CHECK_THAT(drift, ContainsSubstring("summary: 1 PASS → exit 0"));
}

TEST_CASE("a drift that cannot be judged says why", "[orchestrator][report]") {
  const auto page = rendered({.fails = [](const TrialSpec& spec) { return spec.role == TrialRole::drift; }});
  CHECK_THAT(section(page.html, "drift"), ContainsSubstring("UNUSABLE") && ContainsSubstring("finished"));
  CHECK_THAT(section(page.html, "trials"), ContainsSubstring("out of memory"));
}

TEST_CASE("a target's loss stands beside that of the same shape under SP", "[orchestrator][report]") {
  const auto page = rendered({});
  const auto targets = section(page.html, "targets");
  for (const auto& target : page.analysis.targets) {
    CHECK_THAT(targets, ContainsSubstring(fmt::format("{:.5f}", *target.transferred->loss)));
    CHECK_THAT(targets, ContainsSubstring(fmt::format("{:.5f}", *target.baseline->loss)));
    CHECK_THAT(targets,
               ContainsSubstring(fmt::format("{:+.4f}", *target.transferred->loss - *target.baseline->loss)));
  }
}

TEST_CASE("a known floor is taken off the losses of targets", "[orchestrator][report]") {
  auto page = rendered({});
  page.analysis.targets[0].transferred->floor = *page.analysis.targets[0].transferred->loss - 0.25;
  CHECK_THAT(section(render_report(page.study, page.analysis, {}), "targets"),
             ContainsSubstring("0.2500 above the floor"));
}

TEST_CASE("learning curves show the best cell, the others and every target", "[orchestrator][report]") {
  const auto curves = section(rendered({}).html, "curves");
  CHECK(count(curves, "class=\"line best\"") == 2);  // curve and legend
  CHECK(count(curves, "class=\"line faint\"") >= 14);
  CHECK_THAT(curves, ContainsSubstring("8e2a1s under SP"));
}

TEST_CASE("the provenance names study, seed, hash and the trials that were counted",
          "[orchestrator][report]") {
  const auto page = rendered({.fails = [](const TrialSpec& spec) { return spec.role == TrialRole::check; }});
  const auto text = section(page.html, "provenance");
  CHECK_THAT(text, ContainsSubstring(page.study.hash) && ContainsSubstring("2 failed"));
  CHECK_THAT(text, ContainsSubstring(escape(page.study.text)));
}

TEST_CASE("every trial is in the table once", "[orchestrator][report]") {
  const auto page = rendered({});
  const auto trials = section(page.html, "trials");
  // 9 of the scan, of which 3 at the chosen std are cells of the sweep; 15 cells; 2 targets, 2 baselines, 6
  // around.
  CHECK(count(trials, "<tr>") == 1 + 9 + 15 - 3 + 2 + 2 + 6);
}

TEST_CASE("a sweep without an optimum says why", "[orchestrator][report]") {
  const auto page = rendered({.diverges_at = -7.6}, [] {
    auto study = synthetic::study();
    study.space.lr = {.min = 0.002, .max = 0.02, .values = {0.002, 0.02}};
    study.space.wd = {.min = 0.1, .max = 0.1, .values = {0.1}};
    return study;
  }());
  CHECK_FALSE(page.analysis.optimum);
  CHECK_THAT(section(page.html, "proxy"), ContainsSubstring("No optimum:"));
}

TEST_CASE("the 95 % region holds the fitted optimum and is convex", "[orchestrator][heat_map]") {
  const auto page = rendered({});
  const auto& fit = std::get<Optimum>(*page.analysis.fit);
  const auto region = optimum_region(fit);
  REQUIRE(region.size() >= 3);
  for (std::size_t i = 0; i < region.size(); ++i) {
    const auto &a = region[i], &b = region[(i + 1) % region.size()];
    const double side = (b.first - a.first) * (fit.wd.estimate - a.second) -
                        (b.second - a.second) * (fit.lr.estimate - a.first);
    CHECK(side >= 0);
  }
}

TEST_CASE("cell colours go from dark to light and carry readable text", "[orchestrator][heat_map]") {
  CHECK(cell_colour(0).fill == "#1b3570");
  CHECK(cell_colour(0).text == "#ffffff");
  CHECK(cell_colour(1).text != "#ffffff");
  CHECK(cell_colour(7).fill == cell_colour(1).fill);
  CHECK(cell_colour(-1).fill == cell_colour(0).fill);
}

TEST_CASE("axis numbers are short and ticks are round", "[orchestrator][chart]") {
  CHECK(short_number(0.00390625) == "0.0039");
  CHECK(short_number(0.0009765625) == "9.8e-4");
  CHECK(short_number(1e-10) == "1.0e-10");
  CHECK(short_number(0.125) == "0.12");
  const auto ticks = round_ticks(2.81, 2.93, 5);
  REQUIRE(ticks.size() >= 3);
  for (const auto& tick : ticks) CHECK((tick.value >= 2.81 && tick.value <= 2.93));
  CHECK(octave_ticks(-10.4, -5.6, 6).size() == 5);
  CHECK(octave_ticks(-14, -2, 6).size() <= 7);
}

TEST_CASE("a curve is cut at the frame, not drawn across it", "[orchestrator][chart]") {
  ChartFrame frame(200, 100, "t", {0, 10, "", {}}, {0, 1, "", {}}, {});
  const auto before = count(frame.svg.str(), "<polyline");
  frame.curve({{0, 0.5}, {1, 0.5}, {2, 5}, {3, 0.5}, {4, 0.5}}, "line");
  CHECK(count(frame.svg.str(), "<polyline") == before + 2);
}

TEST_CASE("a long curve is thinned by means that keep its ends", "[orchestrator][chart]") {
  std::vector<std::pair<double, double>> points;
  for (int i = 0; i < 1000; ++i) points.emplace_back(i, i);
  const auto few = thinned(points, 100);
  REQUIRE(few.size() == 100);
  CHECK(few.front().second == 4.5);
  CHECK(few.back().second == 994.5);
  CHECK(thinned(few, 200) == few);
}

TEST_CASE("hatching stays inside its cell", "[orchestrator][svg]") {
  Svg svg(100, 100, "t");
  svg.hatch({10, 20}, 30, 15, "hatch");
  const auto text = svg.str();
  static const std::regex line("x1=\"([0-9.]+)\" y1=\"([0-9.]+)\" x2=\"([0-9.]+)\" y2=\"([0-9.]+)\"");
  int lines = 0;
  for (auto match = std::sregex_iterator(text.begin(), text.end(), line); match != std::sregex_iterator();
       ++match, ++lines)
    for (int i = 1; i <= 4; ++i) {
      const double value = std::stod((*match)[i]);
      CHECK((i % 2 == 1 ? value >= 10 && value <= 40 : value >= 20 && value <= 35));
    }
  CHECK(lines >= 4);
}

TEST_CASE("markup in a label is text", "[orchestrator][svg]") {
  CHECK(escape("<a href=\"x\">&'") == "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
  Svg svg(10, 10, "a<b");
  svg.text({1, 1}, Anchor::start, "x<y");
  svg.circle({1, 1}, 1, "c", "", "p&q");
  CHECK_THAT(svg.str(),
             ContainsSubstring("a&lt;b") && ContainsSubstring("x&lt;y") && ContainsSubstring("p&amp;q"));
}

TEST_CASE("trials at the WD nearest the optimum are drawn in full, the others faint",
          "[orchestrator][chart]") {
  // The optimum WD lies between two levels, far from both.
  const auto lr = section(rendered({.log2_wd = -2.2}).html, "lr");
  const auto first = lr.find("class=\"row\"");  // after the picture of all models together
  const auto proxy = lr.substr(first, lr.find("</svg>", first) - first);
  CHECK(count(proxy, "class=\"point\"") >= 3);
  CHECK(count(proxy, "class=\"point faint\"") >= 3);
}

TEST_CASE("a legend names no line that is not drawn", "[orchestrator][chart]") {
  std::vector<TrialResult> results;
  const auto analysis = synthetic::run(synthetic::study(), {}, results);
  auto curves = curves_of(results);
  for (auto& [key, series] : curves) series.pop_back();  // no held-out losses
  const auto html = section(render_report(synthetic::study(), analysis, curves), "curves");
  CHECK(html.find("held-out") == std::string::npos);
  CHECK_THAT(section(render_report(synthetic::study(), analysis, {}), "curves"),
             ContainsSubstring("No curve has been recorded"));
}

TEST_CASE("one picture shows the LR curves of all models, a panel for each rule", "[orchestrator][chart]") {
  auto study = synthetic::study();
  for (auto& target : study.targets) target.drift = true;
  auto copy = study.targets.front();
  copy.name += "@sp";
  copy.rule.rule = models::Parameterization::sp;
  study.targets.push_back(copy);
  const auto analysis = synthetic::run(study, {});
  const auto picture = transfer_picture(analysis);
  REQUIRE(picture);
  const auto svg = picture->str();
  CHECK(count(svg, "class=\"title\">complete-mue") == 1);
  CHECK(count(svg, "class=\"title\">sp") == 1);
  const auto models = study.targets.size() + 2;  // the proxy stands in both panels
  CHECK(count(svg, "class=\"interval") == models);
  CHECK(count(svg, "class=\"transferred\"") == 2);
  const auto file = picture->file("p { }");
  CHECK(file.rfind("<svg xmlns=\"http://www.w3.org/2000/svg\"", 0) == 0);
  CHECK(count(file, "<style>p { }</style>") == 1);
}

TEST_CASE("a study that sweeps no target has no picture of all models", "[orchestrator][chart]") {
  auto study = synthetic::study();
  for (auto& target : study.targets) target.drift = false;
  CHECK_FALSE(transfer_picture(synthetic::run(study, {})));
}
