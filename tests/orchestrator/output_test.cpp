#include "orchestrator/output.h"

#include <charconv>
#include <limits>

#include <nlohmann/json.hpp>

#include "orchestrator/exit_code.h"
#include "tests/support/catch.h"

using namespace orchestrator;

namespace {

const db::Table kTable{
    {"name", "loss", "steps"},
    {{std::string("a, \"b\""), 0.1 + 0.2, std::int64_t{3}},
     {std::string("line\nbreak"), std::numeric_limits<double>::denorm_min(), db::Value{}}}};

}  // namespace

TEST_CASE("a table for people has aligned columns and a dash for nothing", "[orchestrator][output]") {
  const db::Table table{{"name", "loss"},
                        {{std::string("proxy"), 3.0123456789}, {std::string("8e2a"), db::Value{}}}};
  CHECK(format_table(table, Format::table) == "name      loss\nproxy  3.01235\n8e2a         -\n");
}

TEST_CASE("json keeps the order of columns, the digits of numbers and null", "[orchestrator][output]") {
  const auto json = nlohmann::ordered_json::parse(format_table(kTable, Format::json));
  REQUIRE(json.size() == 2);
  CHECK(json[0].begin().key() == "name");
  CHECK(json[0]["loss"].get<double>() == 0.1 + 0.2);
  CHECK(json[1]["loss"].get<double>() == std::numeric_limits<double>::denorm_min());
  CHECK(json[1]["steps"].is_null());
}

TEST_CASE("jsonl is one object a line", "[orchestrator][output]") {
  const auto text = format_table(kTable, Format::jsonl);
  CHECK(std::count(text.begin(), text.end(), '\n') == 2);
  CHECK(nlohmann::json::parse(text.substr(0, text.find('\n')))["name"] == "a, \"b\"");
}

TEST_CASE("csv quotes what needs it and its numbers read back the same", "[orchestrator][output]") {
  const auto text = format_table(kTable, Format::csv);
  CHECK_THAT(text, ContainsSubstring("name,loss,steps\n\"a, \"\"b\"\"\",0.30000000000000004,3\n"));
  CHECK_THAT(text, ContainsSubstring("\"line\nbreak\",5e-324,\n"));
}

TEST_CASE("a number that is not finite is null in json", "[orchestrator][output]") {
  const db::Table table{{"x"}, {{std::numeric_limits<double>::infinity()}}};
  CHECK(format_table(table, Format::jsonl) == "{\"x\":null}\n");
}

TEST_CASE("an unknown format is named with the known ones", "[orchestrator][output]") {
  CHECK_THROWS_WITH(parse_format("yaml"),
                    ContainsSubstring("yaml") && ContainsSubstring("table, json, jsonl, csv"));
}
