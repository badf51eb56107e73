#pragma once

#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "orchestrator/check.h"
#include "orchestrator/commands.h"
#include "orchestrator/control.h"
#include "orchestrator/csv_commands.h"
#include "orchestrator/exit_code.h"
#include "orchestrator/logs.h"
#include "orchestrator/pipeline.h"

/// The command line: one file of commands a chapter (cli_run, cli_read, cli_analysis, cli_check, cli_data,
/// cli_store, cli_help).
namespace orchestrator {

/// What the command line says; one command uses a few of these.
struct Arguments {
  ConsoleOptions console;
  RunOptions run;
  PlanOptions plan;
  LogsOptions logs;
  ControlRequest request;
  CalculatorOptions calculator;
  CheckOptions check;
  CsvFitOptions csv_fit;
  CsvDriftOptions csv_drift;
  std::string database, charts, format = "table", sql, report, corpus, shell, out;
  double query_seconds = 30;
  bool json = false, no_measure = false, trend = false, once = false, dry_run = false;

  Format output_format() const { return json ? Format::json : parse_format(format); }
};

/// What a command does once the whole line has been read.
using Action = std::function<int(const Arguments&)>;

/// Each adds its chapter's commands to `app`; the one that is typed sets `action`.
void add_run_commands(CLI::App& app, Arguments& arguments, Action& action);
void add_read_commands(CLI::App& app, Arguments& arguments, Action& action);
void add_analysis_commands(CLI::App& app, Arguments& arguments, Action& action);
void add_check_commands(CLI::App& app, Arguments& arguments, Action& action);
void add_data_commands(CLI::App& app, Arguments& arguments, Action& action);
void add_store_commands(CLI::App& app, Arguments& arguments, Action& action);
void add_help_commands(CLI::App& app, Arguments& arguments, Action& action);

/// A command whose help ends with an example (what follows "tuneonce ").
CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& help, const std::string& example);
/// One that prints rows: with --format and --json.
CLI::App* add_reader(CLI::App& app, Arguments& arguments, const std::string& name, const std::string& help,
                     const std::string& example);
/// DB, or --db DB.
void add_database(CLI::App* command, Arguments& arguments);

/// Numbers that an option takes; CLI11's own ranges let NaN through.
CLI::Validator above_zero();
CLI::Validator zero_or_more();
CLI::Validator between(double low, double high);

}  // namespace orchestrator
