// `tuneonce check` as a person types it, with the fake worker.
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

using test::tuneonce;

TEST_CASE("a coordinate check of flat sizes passes and draws its curves", "[orchestrator][check]") {
  const TemporaryFolder folder;
  const auto ended =
      tuneonce(folder.path(), {"check", "coord", "--axis", "width,experts", "--svg", "coord.svg", "-j", "2"});
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("PASS  complete-mue, head complete-dp"));
  CHECK_THAT(test::read_text(folder.path() / "coord.svg"), ContainsSubstring("width: effective"));
}

TEST_CASE("updates that grow with width fail the check with exit code 3", "[orchestrator][check]") {
  const TemporaryFolder folder;
  const auto ended = tuneonce(folder.path(), {"check", "coord", "--axis", "width,experts", "--json"},
                              {{"TUNEONCE_FAKE", "grows=1"}});
  CHECK(ended.code == 3);
  int num_failed = 0;
  for (const auto& row : nlohmann::json::parse(ended.out)) {
    if (row.at("verdict") != "FAIL") continue;
    ++num_failed;
    CHECK(row.at("axis") == "width");
    CHECK(row.at("layer") == "head");
    CHECK(row.at("slope_worst") == 1.0);
  }
  CHECK(num_failed == 1);
}

TEST_CASE("the other checks answer for flat sizes and equal losses", "[orchestrator][check]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  CHECK(tuneonce(folder.path(), {"check", "init", "--axis", "width"}).code == 0);
  const auto loss = tuneonce(folder.path(), {"check", "loss", "small.toml", "--csv"});
  CHECK(loss.code == 2);  // there is no such option
  CHECK(tuneonce(folder.path(), {"check", "loss", "small.toml", "--format", "csv"}).code == 0);
}

TEST_CASE("a check refuses what it cannot do", "[orchestrator][check]") {
  const TemporaryFolder folder;
  const auto axis = tuneonce(folder.path(), {"check", "coord", "--axis", "widht"});
  CHECK(axis.code == 2);
  CHECK_THAT(axis.err, ContainsSubstring("known: width"));
  const auto rule = tuneonce(folder.path(), {"check", "coord", "--rule", "mu"});
  CHECK(rule.code == 2);
  CHECK_THAT(rule.err, ContainsSubstring("complete-mue"));
  CHECK(tuneonce(folder.path(), {"check", "coord", "--scales", "1,2"}).code == 2);
}
