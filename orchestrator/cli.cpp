#include "orchestrator/cli.h"

#include <cmath>

#include <fmt/format.h>

namespace orchestrator {
namespace {

CLI::Validator number(const std::string& what, const std::function<bool(double)>& takes) {
  return CLI::Validator(
      [=](const std::string& text) {
        double value = 0;
        const bool good = CLI::detail::lexical_cast(text, value) && std::isfinite(value) && takes(value);
        return good ? std::string() : fmt::format("{} is no number {}", text, what);
      },
      "NUMBER");
}

}  // namespace

CLI::Validator above_zero() {
  return number("above 0", [](double value) { return value > 0; });
}
CLI::Validator zero_or_more() {
  return number("of 0 or more", [](double value) { return value >= 0; });
}
CLI::Validator between(double low, double high) {
  return number(fmt::format("from {} to {}", low, high),
                [=](double value) { return value >= low && value <= high; });
}

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& help, const std::string& example) {
  auto* command = app.add_subcommand(name, help);
  command->footer("example: tuneonce " + example);
  return command;
}

CLI::App* add_reader(CLI::App& app, Arguments& arguments, const std::string& name, const std::string& help,
                     const std::string& example) {
  auto* command = add_command(app, name, help, example);
  command->add_option("--format", arguments.format, "table, json, jsonl or csv")->capture_default_str();
  command->add_flag("--json", arguments.json, "the same as --format json");
  return command;
}

void add_database(CLI::App* command, Arguments& arguments) {
  command->add_option("DB,--db", arguments.database,
                      "database, or study file; default: the only tuneonce database in this folder");
}

}  // namespace orchestrator
