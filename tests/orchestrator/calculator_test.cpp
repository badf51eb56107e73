// `tuneonce transfer` without a study: the paper's worked example, and what is refused.
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

using Catch::Matchers::StartsWith;
using nlohmann::json;

namespace {

test::Ended transfer(std::vector<std::string> arguments) {
  const TemporaryFolder folder;
  arguments.insert(arguments.begin(), "transfer");
  return test::tuneonce(folder.path(), arguments);
}

/// The worked example, with something more or something else.
test::Ended worked_example(const std::vector<std::string>& more, const std::string& target = "128e8a1s",
                           const std::string& proxy = "width=128,depth=32,steps=25000") {
  std::vector<std::string> arguments = {
      "--lr", "1e-3",    "--wd", "0.1",      "--init-std",
      "0.01", "--proxy", proxy,  "--target", target + ",width=1024,depth=32,steps=100000"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return transfer(arguments);
}

json rows_of(const test::Ended& ended) {
  INFO(ended.err);
  REQUIRE(ended.code == 0);
  return json::parse(ended.out);
}

json row(const json& rows, const std::string& group) {
  for (const auto& entry : rows)
    if (entry["group"] == group) return entry;
  FAIL("no row " << group);
  return {};
}

double number(const json& entry, const char* key) { return entry[key].get<double>(); }

void refused(const test::Ended& ended, const std::string& what) {
  CHECK(ended.code == 2);
  CHECK(ended.out.empty());
  CHECK_THAT(ended.err, ContainsSubstring(what));
}

}  // namespace

TEST_CASE("the calculator gives the paper's language-model values", "[orchestrator][calculator]") {
  const auto rows = rows_of(worked_example({"--head", "published", "--json"}));
  for (const auto group : {"expert_down", "shared_down"}) {
    CHECK_THAT(number(row(rows, group), "init_std"), WithinAbs(0.0106066, 1e-7));
    CHECK_THAT(number(row(rows, group), "lr"), WithinAbs(6.25e-5, 1e-12));
    CHECK_THAT(number(row(rows, group), "forward_factor"), WithinAbs(1.0 / 9, 1e-12));
  }
  for (const auto group : {"expert_up", "shared_up", "router", "attention", "head"}) {
    CHECK_THAT(number(row(rows, group), "init_std"), WithinAbs(0.00353553, 1e-8));
    CHECK_THAT(number(row(rows, group), "lr"), WithinAbs(6.25e-5, 1e-12));
  }
  CHECK(number(row(rows, "head"), "forward_factor") == 0.125);
  CHECK_THAT(number(row(rows, "embedding"), "lr"), WithinAbs(5e-4, 1e-12));
  CHECK_THAT(number(row(rows, "embedding"), "wd"), WithinAbs(0.05, 1e-12));
  CHECK(number(row(rows, "embedding"), "init_std") == 0.01);
}

TEST_CASE("the calculator gives the paper's diffusion values", "[orchestrator][calculator]") {
  const auto rows =
      rows_of(transfer({"--family", "diffusion_model", "--lr", "4.52e-3", "--wd", "0.02", "--init-std",
                        "0.02", "--head", "published", "--proxy", "width=128,depth=32,steps=25000",
                        "--target", "128e8a1s,width=1024,steps=100000", "--json"}));
  CHECK_THAT(number(row(rows, "embedding"), "lr"), WithinAbs(2.26e-3, 1e-9));
  CHECK_THAT(number(row(rows, "embedding"), "wd"), WithinAbs(0.01, 1e-12));
  CHECK_THAT(number(row(rows, "expert_down"), "init_std"), WithinAbs(0.0212132, 1e-7));
  CHECK_THAT(number(row(rows, "expert_up"), "init_std"), WithinAbs(0.00707107, 1e-8));
  for (const auto group : {"expert_down", "attention", "router", "modulation", "head"})
    CHECK_THAT(number(row(rows, group), "lr"), WithinAbs(2.825e-4, 1e-9));
}

TEST_CASE("the calculator prints for people, as csv and as jsonl", "[orchestrator][calculator]") {
  const auto text = worked_example({}).out;
  CHECK_THAT(text, ContainsSubstring("128e8a1s, width 1024, depth 32") &&
                       ContainsSubstring("route scale R 8") &&
                       ContainsSubstring("branch multiplier A 0.1111"));
  CHECK_THAT(worked_example({"--format", "csv"}).out, StartsWith("target,rule,group,init_std,lr,"));
  const auto lines = worked_example({"--format", "jsonl"}).out;
  CHECK(json::parse(lines.substr(0, lines.find('\n')))["rule"] == "complete-mue");
}

TEST_CASE("the calculator writes no file and takes several targets", "[orchestrator][calculator]") {
  const auto rows = rows_of(worked_example({"--target", "dense,width=256", "--json"}));
  CHECK(rows.front()["target"] == "128e8a1s");
  CHECK(rows.back()["target"] == "dense");
}

TEST_CASE("the calculator measures the active width in the proxy's expansion", "[orchestrator][calculator]") {
  const auto forward = [](const char* expert_width, const char* proxy) {
    return number(
        row(rows_of(worked_example({"--json"}, std::string("128e8a1s,expert_width=") + expert_width, proxy)),
            "expert_down"),
        "forward_factor");
  };
  CHECK_THAT(forward("1024", "width=128,depth=32"), WithinRel(1.0 / 9, 1e-12));
  CHECK_THAT(forward("512", "width=128,depth=32"), WithinRel(1 / 4.5, 1e-12));
  CHECK_THAT(forward("512", "width=128,depth=32,expansion=0.5"), WithinRel(1.0 / 9, 1e-12));
}

TEST_CASE("the calculator says what differs from a rival's source", "[orchestrator][calculator]") {
  CHECK_THAT(worked_example({"--rule", "jiang"}, "128e8a").out,
             ContainsSubstring("jiang: its source transfers at one"));
  CHECK_THAT(worked_example({"--rule", "u-mup"}, "dense").out, ContainsSubstring("u-mup: its unit-scaled"));
}

TEST_CASE("the calculator refuses a rule that says nothing about the shape", "[orchestrator][calculator]") {
  refused(worked_example({"--rule", "completep"}), "use complete-mue, mup or sp");
  refused(worked_example({"--rule", "mssp"}), "shared experts");
  refused(worked_example({"--rule", "mup-moe"}, "128e8a", "width=128,depth=8"), "the proxy's depth 8");
}

TEST_CASE("the calculator refuses a beta that would reach 1", "[orchestrator][calculator]") {
  refused(worked_example({}, "128e8a1s", "width=128,depth=32,steps=1600000"), "raise the proxy's beta");
}

TEST_CASE("the calculator refuses more active experts than there are", "[orchestrator][calculator]") {
  refused(worked_example({}, "8e9a"), "9 active experts of only 8");
}

TEST_CASE("the calculator refuses an expansion of zero or less", "[orchestrator][calculator]") {
  refused(worked_example({}, "8e2a", "width=128,expansion=0"),
          "expansion is \"0\"; it must be a number above 0");
  refused(worked_example({}, "8e2a", "width=128,expansion=-1"), "a number above 0");
}

TEST_CASE("the calculator refuses a learning rate that is no number above zero", "[orchestrator][calculator]") {
  for (const char* lr : {"nan", "inf", "0", "-1e-3", "fast"}) {
    INFO(lr);
    refused(transfer({"--lr", lr, "--wd", "0.1", "--init-std", "0.01", "--proxy", "width=128", "--target", "8e2a"}),
            "--lr");
  }
  refused(worked_example({"--beta2", "nan"}), "nan is no number from 0 to 1");
}

TEST_CASE("the calculator names the nearest key for one that is unknown", "[orchestrator][calculator]") {
  refused(worked_example({}, "8e2a", "widht=128"), "did you mean \"width\"?");
  refused(worked_example({}, "8e2a,expert_widht=64"), "did you mean \"expert_width\"?");
  refused(worked_example({}, "8e2a", "width=128,context=8,vocab=1"), "vocab must be at least 2");
}

TEST_CASE("the calculator asks for what it lacks", "[orchestrator][calculator]") {
  refused(transfer({"--proxy", "width=128"}), "needs --target too");
  refused(transfer({"--rule", "mup"}), "needs --proxy too");
  refused(transfer({"study.db", "--rule", "mup"}), "not both");
}
