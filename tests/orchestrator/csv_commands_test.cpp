// `tuneonce fit --csv` and `tuneonce drift --proxy --target`, as a person runs them.
#include <cmath>
#include <functional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

using nlohmann::json;
using test::tuneonce;
namespace fs = std::filesystem;

namespace {

constexpr double kLr = -8, kWd = -3;  // the optimum, octaves

/// A bowl about (x0, y0) with a little noise that is the same at every point of every sweep.
double bowl(double x, double y, double x0, double y0, double noise = 0.0004) {
  const double u = x - x0, v = y - y0;
  return 2.5 + 0.016 * u * u + 0.004 * u * v + 0.008 * v * v + noise * std::sin(37 * x + 11 * y);
}

/// 7 LRs x 5 WDs, an octave apart about the proxy's optimum, as CSV; this sweep's own optimum is moved.
std::string sweep(double lr_shift = 0, double noise = 0.0004) {
  std::string text = "run,lr,wd,loss\n";
  for (int i = -3; i <= 3; ++i)
    for (int j = -2; j <= 2; ++j)
      text += fmt::format("r{}{},{},{},{}\n", i, j, std::exp2(kLr + i), std::exp2(kWd + j),
                          bowl(kLr + i, kWd + j, kLr + lr_shift, kWd, noise));
  return text;
}

/// A table of points and losses.
std::string rows(const std::vector<std::array<double, 3>>& values) {
  std::string text = "lr,wd,loss\n";
  for (const auto& [lr, wd, loss] : values) text += fmt::format("{},{},{}\n", lr, wd, loss);
  return text;
}

/// Files that are not what the program printed.
std::vector<std::string> names(const fs::path& folder) {
  std::vector<std::string> result;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().has_extension()) result.push_back(entry.path().filename());
  std::sort(result.begin(), result.end());
  return result;
}

json row_of(const test::Ended& ended, int code = 0) {
  INFO(ended.err);
  REQUIRE(ended.code == code);
  const auto rows = json::parse(ended.out);
  REQUIRE(rows.size() == 1);
  return rows[0];
}

void ends(const test::Ended& ended, int code, const std::string& what) {
  CHECK(ended.code == code);
  CHECK(ended.out.empty());
  CHECK_THAT(ended.err, ContainsSubstring(what));
}

}  // namespace

TEST_CASE("a sweep in a CSV file has its optimum fitted, without a study", "[orchestrator][csv]") {
  const TemporaryFolder folder;
  folder.write("dense.csv", sweep());
  const auto row = row_of(tuneonce(folder.path(), {"fit", "--csv", "dense.csv", "--json"}));
  CHECK(row["model"] == "dense");
  CHECK_THAT(std::log2(row["lr"].get<double>()), WithinAbs(kLr, 0.1));
  CHECK_THAT(std::log2(row["wd"].get<double>()), WithinAbs(kWd, 0.2));
  CHECK(row["bracketed"] == 1);
  CHECK(row["near_lr_low"] < row["lr"]);
  CHECK(row["near_lr_high"] > row["lr"]);
  CHECK(row["steps"].is_null());
  const auto text = tuneonce(folder.path(), {"fit", "--csv", "dense.csv"});
  CHECK(text.code == 0);
  CHECK_THAT(text.out, ContainsSubstring("dense  n=35 ok") && ContainsSubstring("near-optimal box") &&
                           ContainsSubstring("tau* in steps"));
  CHECK(names(folder.path()) == std::vector<std::string>{"dense.csv"});
}

TEST_CASE("the fit of a study's trials as CSV is the study's fit to the last digit", "[orchestrator][csv]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  REQUIRE(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
  const auto own = json::parse(tuneonce(folder.path(), {"fit", "--json"}).out)[0];
  folder.write("all.csv", tuneonce(folder.path(), {"results", "--format", "csv"}).out);
  ends(tuneonce(folder.path(), {"fit", "--csv", "all.csv"}), 2, "belongs to another sweep");
  const auto select =
      fmt::format("SELECT * FROM results WHERE target IS NULL AND init_std = {} ORDER BY trial",
                  own["init_std"].get<double>());
  folder.write("proxy.csv", tuneonce(folder.path(), {"query", select, "--format", "csv"}).out);
  const auto tolerance = fmt::format("{} nats", own["tolerance"].get<double>());
  const auto steps = std::to_string(own["steps"].get<int>());
  const auto row = row_of(tuneonce(folder.path(), {"fit", "--csv", "proxy.csv", "--tolerance", tolerance,
                                                   "--steps", steps, "--seed", "1", "--json"}));
  for (const auto& [column, value] : own.items())
    if (column != "init_std") CHECK(row[column] == value);
}

TEST_CASE("options of the fit reach it", "[orchestrator][csv]") {
  const TemporaryFolder folder;
  folder.write("s.csv", sweep());
  const auto fit = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"fit", "--csv", "s.csv", "--json"});
    return row_of(tuneonce(folder.path(), more));
  };
  CHECK(fit({"--tolerance", "0.02 nats"})["tolerance"] == 0.02);
  CHECK(fit({"--tolerance", "1%"})["tolerance"].get<double>() < 0.0251);
  CHECK(fit({"--tolerance", "0.02 mse", "--loss-unit", "mse"})["tolerance"] == 0.02);
  CHECK_THAT(tuneonce(folder.path(), {"fit", "--csv", "s.csv", "--loss-unit", "mse"}).out,
             ContainsSubstring(" mse (residuals") && !ContainsSubstring("nats"));
  // As in a study of a diffusion model: far above the best is diverged, and the pictures have the unit.
  folder.write("m.csv", sweep() + "x,1,0.125,3.51\n");
  const std::vector<std::string> mse = {"fit", "--csv", "m.csv", "--loss-unit", "mse", "--charts", "pics"};
  CHECK_THAT(tuneonce(folder.path(), mse).out, ContainsSubstring("1 diverged"));
  CHECK_THAT(test::read_text(folder / "pics/m_heat_map.svg"), ContainsSubstring("loss, mse"));
  CHECK(fit({"--steps", "500"})["steps"] == 500);
  CHECK(fit({"--seed", "2"})["lr_low"] != fit({"--seed", "3"})["lr_low"]);
  CHECK(fit({"--seed", "2"}) == fit({"--seed", "2"}));
  CHECK_THAT(tuneonce(folder.path(), {"fit", "--csv", "s.csv", "--steps", "500"}).out,
             ContainsSubstring("tau*/steps"));
}

TEST_CASE("a fit draws its pictures where it is told to", "[orchestrator][csv]") {
  const TemporaryFolder folder;
  folder.write("dense.csv", sweep() + "x,1,0.125,nan\n");
  const auto ended = tuneonce(folder.path(), {"fit", "--csv", "dense.csv", "--charts", "out/pics", "--json"});
  CHECK(ended.code == 0);
  CHECK(json::parse(ended.out).size() == 1);
  CHECK_THAT(ended.err, ContainsSubstring("out/pics/dense_lr.svg"));
  CHECK(names(folder / "out/pics") == std::vector<std::string>{"dense_heat_map.svg", "dense_lr.svg"});
  CHECK_THAT(test::read_text(folder / "out/pics/dense_heat_map.svg"),
             ContainsSubstring("class=\"region\"") && ContainsSubstring("class=\"hatch\"") &&
                 ContainsSubstring("xmlns"));
  CHECK_THAT(test::read_text(folder / "out/pics/dense_lr.svg"), ContainsSubstring("class=\"fit\""));
  folder.write("file", "");
  ends(tuneonce(folder.path(), {"fit", "--csv", "dense.csv", "--charts", "file/pics"}), 6, "file/pics");
}

TEST_CASE("an optimum on the edge has exit code 4 and the runs that would bracket it",
          "[orchestrator][csv]") {
  const TemporaryFolder folder;
  folder.write("edge.csv", sweep(3.5));
  const auto ended = tuneonce(folder.path(), {"fit", "--csv", "edge.csv"});
  CHECK(ended.code == 4);
  CHECK_THAT(ended.out,
             ContainsSubstring("not bracketed") && ContainsSubstring("to bracket it    add LR 0.0"));
}

TEST_CASE("runs without a result are counted and left out", "[orchestrator][csv]") {
  const TemporaryFolder folder;
  auto text = sweep();
  text.insert(text.find('\n'), ",status");
  for (auto at = text.find('\n') + 1; (at = text.find('\n', at)) != std::string::npos; at += 2)
    text.insert(at, ",");
  folder.write("s.csv", text + "a,0.1,0.1,1.0,pruned\nb,0.1,0.1,,failed\nc,0.5,0.1,3,diverged\n");
  const auto ended = tuneonce(folder.path(), {"fit", "--csv", "s.csv"});
  CHECK(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("n=35 ok, 1 diverged (LR>=0.5)") &&
                            ContainsSubstring("left out         1 failed, 1 pruned"));
}

TEST_CASE("runs that determine no optimum end with exit code 4 and what is missing",
          "[orchestrator][csv][bad_input]") {
  const TemporaryFolder folder;
  const auto fit = [&](const std::string& text) {
    folder.write("s.csv", text);
    return tuneonce(folder.path(), {"fit", "--csv", "s.csv"});
  };
  ends(fit(rows({{0.001, 0.1, 2.5}, {0.002, 0.1, 2.4}})), 4,
       "s.csv: 2 finished trials; this design needs at least");
  std::vector<std::array<double, 3>> one_lr, line, diverged;
  for (int i = 0; i < 12; ++i) {
    one_lr.push_back({0.001, std::exp2(i - 6), 2.5 + 0.01 * (i - 5) * (i - 5)});
    line.push_back({std::exp2(i - 12), std::exp2(i - 6), 2.5 + 0.01 * (i - 5) * (i - 5)});
    diverged.push_back({std::exp2(i - 6), 0.1, NAN});
  }
  ends(fit(rows(one_lr)), 4, "1 LR level among the finished trials; the optimum needs at least 3");
  ends(fit(rows(line)), 4, "not varied independently");
  ends(fit(rows(diverged)), 4, "no run finished, 12 of 12 diverged; add runs below LR 0.016");
  ends(fit("lr,wd,loss,status\n1,1,,failed\n"), 4, "no run finished; add runs");
}

TEST_CASE("a sweep of one WD has its LR fitted alone", "[orchestrator][csv]") {
  const TemporaryFolder folder;
  std::vector<std::array<double, 3>> values;
  for (int i = -3; i <= 3; ++i) values.push_back({std::exp2(kLr + i), 0.1, bowl(kLr + i, kWd, kLr, kWd)});
  folder.write("s.csv", rows(values));
  const auto row = row_of(tuneonce(folder.path(), {"fit", "--csv", "s.csv", "--json", "--charts", "."}));
  CHECK(row["wd_fitted"] == 0);
  CHECK_THAT(std::log2(row["lr"].get<double>()), WithinAbs(kLr, 0.15));
  CHECK(fs::exists(folder / "s_heat_map.svg"));
}

TEST_CASE("the commands for CSV files refuse what does not go together", "[orchestrator][csv][bad_input]") {
  const TemporaryFolder folder;
  folder.write("s.csv", sweep());
  folder.write("n.csv", rows({{1, 1, -2}, {2, 1, -3}}));
  const auto run = [&](const std::vector<std::string>& arguments) {
    return tuneonce(folder.path(), arguments);
  };
  ends(run({"fit", "--csv", "none.csv"}), 2, "none.csv: there is no such file");
  ends(run({"fit", "study.db", "--csv", "s.csv"}), 2, "not both");
  ends(run({"fit", "s.csv"}), 2, "s.csv: is no database; fit takes a CSV file with --csv");
  ends(run({"drift", "s.csv"}), 2, "with --proxy");
  ends(run({"fit", "--tolerance", "1%"}), 2, "--tolerance is for CSV files: give --csv too");
  ends(run({"fit", "--csv", "s.csv", "--tolerance", "0.003"}), 2, "\"0.003 nats\"");
  ends(run({"fit", "--csv", "n.csv"}), 2, "give --tolerance in nats");
  ends(run({"drift", "--proxy", "s.csv"}), 2, "needs --target too");
  ends(run({"drift", "--target", "s.csv"}), 2, "needs --proxy too");
  ends(run({"drift", "--proxy", "s.csv", "--target", "n.csv", "--lr", "nan"}), 2, "--lr");
  ends(run({"drift", "--lr", "1e-3"}), 2, "--lr is for CSV files: give --proxy too");
  ends(run({"drift", "--proxy", "s.csv", "--target", "./s.csv"}), 2, "name two sweeps");
  ends(run({"fit", "--csv", "s.csv", "--format", "text"}), 2, "known: table");
}

TEST_CASE("a target whose optimum stayed passes, from the proxy's fitted optimum", "[orchestrator][csv]") {
  const TemporaryFolder folder;
  folder.write("dense.csv", sweep());
  folder.write("moe.csv", sweep(0.05));
  const auto ended = tuneonce(folder.path(), {"drift", "--proxy", "dense.csv", "--target", "moe.csv"});
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("PASS") && ContainsSubstring("moe              35 (0)") &&
                            ContainsSubstring("(the proxy's optimum)") &&
                            ContainsSubstring("From the proxy's optimum, as uncertain as it is: dLR"));
  CHECK(names(folder.path()) == std::vector<std::string>{"dense.csv", "moe.csv"});
}

TEST_CASE("a target whose optimum moved is a drift with exit code 3", "[orchestrator][csv]") {
  const TemporaryFolder folder;
  folder.write("dense.csv", sweep());
  folder.write("moe.csv", sweep(1.2));
  const auto row =
      row_of(tuneonce(folder.path(), {"drift", "--proxy", "dense.csv", "--target", "moe.csv", "--json"}), 3);
  CHECK(row["target"] == "moe");
  CHECK(row["verdict"] == "DRIFT");
  CHECK_THAT(row["lr_shift"].get<double>(), WithinAbs(1.2, 0.15));
  CHECK_THAT(row["lr_from_proxy"].get<double>(), WithinAbs(1.2, 0.15));
  CHECK(row["lr_from_proxy_high"].get<double>() - row["lr_from_proxy_low"].get<double>() >
        row["lr_shift_high"].get<double>() - row["lr_shift_low"].get<double>());
  CHECK_THAT(std::log2(row["lr"].get<double>()), WithinAbs(kLr, 0.1));
  CHECK(row["rule"].is_null());
}

TEST_CASE("drift is measured from the point that is given", "[orchestrator][csv]") {
  const TemporaryFolder folder;
  folder.write("dense.csv", sweep());
  folder.write("moe.csv", sweep(1.2));
  const auto lr = fmt::format("{}", std::exp2(kLr + 1.2)), wd = fmt::format("{}", std::exp2(kWd));
  const auto ended = tuneonce(folder.path(), {"drift", "--proxy", "dense.csv", "--target", "moe.csv", "--lr",
                                              lr, "--wd", wd, "--charts", "pics"});
  CHECK(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("PASS") && ContainsSubstring("(given)"));
  const auto svg = test::read_text(folder / "pics/moe_drift.svg");
  CHECK_THAT(svg, ContainsSubstring(">dense<") && ContainsSubstring(">moe<") &&
                      ContainsSubstring("class=\"transferred\""));
}

TEST_CASE("an open verdict has exit code 4 and names the runs that would tell most", "[orchestrator][csv]") {
  const TemporaryFolder folder;
  folder.write("dense.csv", sweep());
  folder.write("moe.csv", sweep(0.25, 0.01));
  const auto ended = tuneonce(
      folder.path(), {"drift", "--proxy", "dense.csv", "--target", "moe.csv", "--tolerance", "0.0024 nats"});
  CHECK(ended.code == 4);
  CHECK_THAT(ended.out, ContainsSubstring("INCONCLUSIVE") &&
                            ContainsSubstring("runs of the target that would tell most: LR"));
}

TEST_CASE("a proxy that is not bracketed gives no verdict unless the point is given", "[orchestrator][csv]") {
  const TemporaryFolder folder;
  folder.write("dense.csv", sweep(3.5));
  folder.write("moe.csv", sweep());
  const auto open = tuneonce(folder.path(), {"drift", "--proxy", "dense.csv", "--target", "moe.csv"});
  CHECK(open.code == 4);
  CHECK_THAT(open.out, ContainsSubstring("no verdict on the transfer") && ContainsSubstring("--lr and --wd"));
  const auto lr = fmt::format("{}", std::exp2(kLr)), wd = fmt::format("{}", std::exp2(kWd));
  CHECK(tuneonce(folder.path(),
                 {"drift", "--proxy", "dense.csv", "--target", "moe.csv", "--lr", lr, "--wd", wd})
            .code == 0);
}

TEST_CASE("a proxy or a target without enough runs gives no verdict and says why", "[orchestrator][csv]") {
  const TemporaryFolder folder;
  folder.write("dense.csv", sweep());
  folder.write("two.csv", rows({{0.001, 0.1, 2.5}, {0.002, 0.1, 2.4}}));
  folder.write("none.csv", rows({{0.001, 0.1, NAN}, {0.002, 0.1, NAN}}));
  const auto drift = [&](const std::string& proxy, const std::string& target) {
    return tuneonce(folder.path(), {"drift", "--proxy", proxy, "--target", target});
  };
  ends(drift("two.csv", "dense.csv"), 4, "two.csv: 2 finished trials");
  ends(drift("dense.csv", "none.csv"), 4, "none.csv: no run finished, 2 of 2 diverged");
  const auto few = drift("dense.csv", "two.csv");
  CHECK(few.code == 4);
  CHECK_THAT(few.out, ContainsSubstring("UNUSABLE (2 of the runs finished; at least 7 are needed)"));
}

TEST_CASE("two sweeps of one name are told apart by their folders", "[orchestrator][csv]") {
  const TemporaryFolder folder;
  folder.write("dense/sweep.csv", sweep());
  folder.write("moe/sweep.csv", sweep());
  CHECK_THAT(
      tuneonce(folder.path(), {"drift", "--proxy", "dense/sweep.csv", "--target", "moe/sweep.csv"}).out,
      ContainsSubstring("\ndense_sweep ") && ContainsSubstring("\nmoe_sweep "));
}
