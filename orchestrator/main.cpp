#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <functional>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "db/sqlite.h"
#include "orchestrator/check.h"
#include "orchestrator/commands.h"
#include "orchestrator/csv_commands.h"
#include "orchestrator/data_fetch.h"
#include "orchestrator/exit_code.h"
#include "orchestrator/pipeline.h"
#include "sweeps/study_file.h"

namespace {

using namespace orchestrator;

/// What the command line says; one command uses a few of these.
struct Arguments {
  ConsoleOptions console;
  RunOptions run;
  CalculatorOptions calculator;
  CheckOptions check;
  CsvFitOptions csv_fit;
  CsvDriftOptions csv_drift;
  std::string study, database, charts, format = "table", sql, trial, report, corpus;
  double query_seconds = 30;
  bool json = false, no_measure = false, trend = false;

  Format output_format() const { return json ? Format::json : parse_format(format); }
};

/// Numbers that an option takes; CLI11's own ranges let NaN through.
CLI::Validator number(const std::string& what, const std::function<bool(double)>& takes) {
  return CLI::Validator(
      [=](const std::string& text) {
        double value = 0;
        const bool good = CLI::detail::lexical_cast(text, value) && std::isfinite(value) && takes(value);
        return good ? std::string() : fmt::format("{} is no number {}", text, what);
      },
      "NUMBER");
}
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

constexpr const char* kCalculatorExample =
    "--lr 1e-3 --wd 0.1 --init-std 0.01 --proxy width=128,depth=32,steps=25000 --target "
    "128e8a1s,width=1024,steps=100000";

using Action = std::function<int(const Arguments&)>;

/// A command that reads a database and prints rows.
CLI::App* add_reader(CLI::App& app, Arguments& arguments, const std::string& name, const std::string& help) {
  auto* command = app.add_subcommand(name, help);
  command->add_option("--format", arguments.format, "table, json, jsonl or csv")->capture_default_str();
  command->add_flag("--json", arguments.json, "the same as --format json");
  return command;
}
void add_database(CLI::App* command, Arguments& arguments) {
  command->add_option("DB,--db", arguments.database,
                      "database, or study file; default: the only tuneonce database in this folder");
}

/// `transfer` reads a database, or calculates from shapes and values that are given here.
void add_transfer(CLI::App& app, Arguments& arguments, Action& action) {
  auto* command =
      add_reader(app, arguments, "transfer",
                 "every factor and value of every target, from the database; or, with --proxy and "
                 "--target, of the shapes given here");
  add_database(command, arguments);
  auto& c = arguments.calculator;
  const auto group = [&](CLI::Option* option) { return option->group("without a database"); };
  const std::vector<CLI::Option*> needed = {
      group(command->add_option("--proxy", c.proxy, "dense shape, as in width=128,depth=32,steps=25000")),
      group(command->add_option("--target", c.targets,
                                "shape, as in 128e8a1s,width=1024,steps=100000; may be repeated")),
      group(command->add_option("--lr", c.tuned.lr, "the proxy's optimum")->check(above_zero())),
      group(command->add_option("--wd", c.tuned.wd, "the proxy's optimum")->check(zero_or_more())),
      group(command->add_option("--init-std", c.tuned.init_std, "the proxy's")->check(above_zero()))};
  std::vector<CLI::Option*> all = needed;
  for (auto* option :
       {command->add_option("--rule", c.rule,
                            "complete-mue, sp, mup, completep, complete-dp, mup-moe, jiang, mssp, u-mup"),
        command->add_option("--family", c.family, "language_model or diffusion_model"),
        command->add_option("--wd-width", c.wd_width, "scaled, literal or independent"),
        command->add_option("--head", c.head, "published, mup or complete-dp"),
        command->add_option("--depth-exponent", c.options.depth_exponent, "alpha of CompleteP")
            ->check(between(0, 2)),
        command->add_option("--duration-exponent", c.options.duration_exponent, "0.5 is Complete(d)P")
            ->check(between(0, 2)),
        command->add_option("--mssp-regime", c.options.mssp_regime, "1, 2 or 3")->check(CLI::Range(1, 3)),
        command->add_option("--beta1", c.tuned.beta1, "of the proxy")->check(between(0, 1)),
        command->add_option("--beta2", c.tuned.beta2, "of the proxy")->check(between(0, 1)),
        command->add_option("--eps", c.tuned.eps, "of the proxy")->check(above_zero())})
    all.push_back(group(option->capture_default_str()));
  command->callback([&arguments, &action, needed, all] {
    const auto given = [](const CLI::Option* option) { return option->count() > 0; };
    if (std::none_of(all.begin(), all.end(), given)) {
      action = [](const Arguments& a) {
        return show_transfer(choose_database(a.database), a.output_format());
      };
      return;
    }
    if (!arguments.database.empty())
      throw ExitError(kUsage,
                      fmt::format("transfer reads {} or calculates from --proxy and --target, not both",
                                  arguments.database));
    for (const auto* option : needed)
      if (!given(option))
        throw ExitError(kUsage, fmt::format("transfer without a database needs {} too, for example {}",
                                            option->get_name(), kCalculatorExample));
    action = [](const Arguments& a) { return show_calculated(a.calculator, a.output_format()); };
  });
}

/// A command that reads a database, or the CSV files that the options `needed` name; `others` go with these.
void choose_source(CLI::App* command, const Arguments& arguments, Action& action,
                   const std::vector<CLI::Option*>& needed, const std::vector<CLI::Option*>& others,
                   const Action& from_database, const Action& from_csv) {
  command->callback([=, &arguments, &action] {
    const auto given = [](const CLI::Option* option) { return option->count() > 0; };
    const bool csv = std::any_of(needed.begin(), needed.end(), given);
    for (const auto* option : csv ? needed : others)
      if (given(option) != csv)
        throw ExitError(kUsage, csv ? fmt::format("{} without a database needs {} too", command->get_name(),
                                                  option->get_name())
                                    : fmt::format("{} {} is for CSV files: give {} too", command->get_name(),
                                                  option->get_name(), needed.front()->get_name()));
    if (!csv && arguments.database.ends_with(".csv"))
      throw ExitError(kUsage, fmt::format("{}: is no database; {} takes a CSV file with {}", arguments.database,
                                          command->get_name(), needed.front()->get_name()));
    if (csv && !arguments.database.empty())
      throw ExitError(kUsage, fmt::format("{} reads {} or CSV files, not both", command->get_name(),
                                          arguments.database));
    action = csv ? from_csv : from_database;
  });
}

/// `fit` and `drift` read a database, or sweeps that were trained elsewhere.
void add_fit_and_drift(CLI::App& app, Arguments& arguments, Action& action) {
  const auto group = [](CLI::Option* option) { return option->group("without a database"); };
  const auto common = [&](CLI::App* command, CsvOptions& options, const std::string& pictures) {
    return std::vector<CLI::Option*>{
        group(command->add_option("--tolerance", options.tolerance, "share of the lowest loss, or as in \"0.003 nats\"")
                  ->capture_default_str()),
        group(command->add_option("--loss-unit", options.loss_unit, "nats or mse")
                  ->capture_default_str()
                  ->check(CLI::IsMember({"nats", "mse"}))),
        group(command->add_option("--seed", options.seed, "of the draws of the fit")->capture_default_str()),
        group(command->add_option("--charts", options.charts, "folder that gets " + pictures))};
  };

  auto* fit = add_reader(app, arguments, "fit",
                         "the proxy's optimum with its uncertainty, from the database; or, with --csv, of a sweep "
                         "that was trained elsewhere");
  add_database(fit, arguments);
  auto& f = arguments.csv_fit;
  const std::vector<CLI::Option*> sweep = {
      group(fit->add_option("--csv", f.csv, "columns lr, wd, loss, and seed, status if there are any"))};
  auto others = common(fit, f, "NAME_heat_map.svg and NAME_lr.svg");
  others.push_back(group(fit->add_option("--steps", f.steps, "of a run: AdamW's time scale as a share of them")
                             ->check(above_zero())));
  choose_source(
      fit, arguments, action, sweep, others,
      [](const Arguments& a) { return show_fit(choose_database(a.database), a.output_format()); },
      [](const Arguments& a) {
        Console console(a.console);
        return fit_csv(a.csv_fit, a.output_format(), console);
      });

  auto* drift = add_reader(app, arguments, "drift",
                           "did the targets' optima move, from the database; or, with --proxy and --target, of "
                           "sweeps that were trained elsewhere");
  add_database(drift, arguments);
  auto* trend = drift->add_flag("--trend", arguments.trend,
                                "how the drift goes with the targets' scale, a row for each rule");
  auto& d = arguments.csv_drift;
  const std::vector<CLI::Option*> pair = {
      group(drift->add_option("--proxy", d.proxy, "CSV of the proxy's sweep: lr, wd, loss")),
      group(drift->add_option("--target", d.target,
                              "CSV of the target's sweep, with LR and WD before the rule's factors"))};
  for (auto* option : pair) trend->excludes(option);
  others = common(drift, d, "TARGET_drift.svg");
  for (auto* option :
       {drift->add_option("--lr", d.lr, "the transferred point; default: the proxy's fitted optimum"),
        drift->add_option("--wd", d.wd, "the transferred point; default: the proxy's fitted optimum"),
        drift->add_option("--lr-shift", d.lr_shift, "octaves that still count as the same place")
            ->capture_default_str(),
        drift->add_option("--wd-shift", d.wd_shift, "octaves that still count as the same place")
            ->capture_default_str()})
    others.push_back(group(option->check(above_zero())));
  choose_source(
      drift, arguments, action, pair, others,
      [](const Arguments& a) { return show_drift(choose_database(a.database), a.trend, a.output_format()); },
      [](const Arguments& a) {
        Console console(a.console);
        return drift_csv(a.csv_drift, a.output_format(), console);
      });
}

void add_run(CLI::App& app, Arguments& arguments, Action& action, const std::string& name,
             const std::string& help) {
  auto* command = app.add_subcommand(name, help);
  command->add_option("STUDY", arguments.run.study_file, "study file (TOML)")->required();
  command->add_option("--db", arguments.run.database, "database; default: <study name>.db in this folder");
  command->add_option("--report", arguments.run.report,
                      "HTML report; default: the database's name with .html");
  command->add_option("-j,--workers", arguments.run.num_workers, "workers; default: one a GPU, or one a core")
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--stall-timeout", arguments.run.stall_seconds,
                   "seconds of silence after which a worker is killed")
      ->check(above_zero());
  command
      ->add_option("--checkpoint-every", arguments.run.checkpoint_seconds,
                   "seconds between checkpoints of a trial")
      ->check(above_zero());
  command->callback([&] {
    action = [](const Arguments& a) {
      Console console(a.console);
      return run_study(a.run, console);
    };
  });
}

/// `check coord`, `check init`, `check loss`.
void add_check(CLI::App& app, Arguments& arguments, Action& action) {
  auto* check = app.add_subcommand("check", "proofs that a rule is implemented right")->require_subcommand(1);
  const auto add = [&](const std::string& name, const std::string& help,
                       int (*run)(const CheckOptions&, Console&)) {
    auto* command = add_reader(*check, arguments, name, help);
    auto& options = arguments.check;
    command->add_option("STUDY", options.study_file, "study file (TOML); default: a small one on the teacher");
    command->add_option("--rule", options.rule, "instead of the study's rule");
    command->add_option("--head", options.head, "instead of the study's: published, mup, complete-dp");
    command->add_option("--lr", options.lr, "of the proxy; default: the middle of the study's space")
        ->check(above_zero());
    command->add_option("--init-std", options.init_std, "of the proxy; default: the study's")
        ->check(above_zero());
    command->add_option("--seeds", options.seeds, "per model")->capture_default_str()->check(CLI::Range(2, 100));
    command->add_option("-j,--workers", options.num_workers, "workers; default: one a GPU, or one a core")
        ->check(CLI::Range(1, 1024));
    if (name != "loss") {
      command->add_option("--axis", options.axes, "width, depth, experts, active, granularity, shared; default: all")
          ->delimiter(',');
      command->add_option("--scales", options.scales, "powers of two along an axis")
          ->delimiter(',')
          ->capture_default_str();
    }
    if (name != "init") {
      command->add_option("--steps", options.steps, name == "coord" ? "default: 10" : "default: 100")
          ->check(CLI::Range(2, 100000));
      command->add_option("--svg", options.svg, "also write the curves here");
    }
    if (name == "coord") command->add_flag("--all", options.all, "also rows that are only shown");
    command->callback([&action, run] {
      action = [run](const Arguments& a) {
        Console console(a.console);
        auto checked = a.check;
        checked.format = a.output_format();
        return run(checked, console);
      };
    });
  };
  add("coord", "coordinate check: sizes of activations and updates must not move with scale", check_coord);
  add("init", "the size of each branch before the first update must not move with scale", check_init);
  add("loss", "the first losses of the targets must follow the dense proxy's", check_loss);
}

void add_commands(CLI::App& app, Arguments& arguments, Action& action) {
  auto* plan = app.add_subcommand(
      "plan", "show the resolved study, its trials, cost and transfer factors; write nothing");
  plan->add_option("STUDY", arguments.study, "study file (TOML)")->required();
  plan->add_flag("--no-measure", arguments.no_measure, "leave out the timing of a few steps");
  plan->callback([&] {
    action = [](const Arguments& a) {
      Console console(a.console);
      return plan_study(a.study, !a.no_measure, console);
    };
  });

  add_run(app, arguments, action, "run",
          "tune, fit, transfer, train the targets, judge drift; from wherever it stands");
  add_run(app, arguments, action, "resume", "the same as run");

  const auto reader = [&](const std::string& name, const std::string& help, auto show) {
    auto* command = add_reader(app, arguments, name, help);
    add_database(command, arguments);
    command->callback([&action, show] {
      action = [show](const Arguments& a) { return show(choose_database(a.database), a.output_format()); };
    });
  };
  reader("status", "where a study stands", show_status);
  reader("results", "one row a trial", show_results);
  reader("best", "the best trial of each model", show_best);

  auto* query = add_reader(app, arguments, "query", "run one SELECT; tables and views: db/README.md");
  query->add_option("SQL", arguments.sql, "the statement")->required();
  add_database(query, arguments);
  query->add_option("--timeout", arguments.query_seconds, "seconds")
      ->capture_default_str()
      ->check(above_zero());
  query->callback([&] {
    action = [](const Arguments& a) {
      return show_query(choose_database(a.database), a.sql, a.query_seconds, a.output_format());
    };
  });

  auto* logs = app.add_subcommand("logs", "what a trial's workers printed");
  logs->add_option("TRIAL", arguments.trial, "number or name of the trial")->required();
  add_database(logs, arguments);
  logs->callback(
      [&] { action = [](const Arguments& a) { return show_logs(choose_database(a.database), a.trial); }; });

  add_fit_and_drift(app, arguments, action);
  add_transfer(app, arguments, action);

  auto* report = app.add_subcommand("report", "write the HTML report from the database");
  add_database(report, arguments);
  report->add_option("-o,--report", arguments.report, "file; default: the database's name with .html");
  report->add_option("--charts", arguments.charts, "folder that also gets the picture of all LR curves as SVG");
  report->callback([&] {
    action = [](const Arguments& a) { return make_report(choose_database(a.database), a.report, a.charts); };
  });

  add_check(app, arguments, action);

  auto* data = app.add_subcommand("data", "corpora")->require_subcommand(1);
  auto* fetch = data->add_subcommand("fetch", "get a corpus into the cache and print its folder");
  fetch->add_option("NAME", arguments.corpus, "gcide or fashion-mnist")->required();
  fetch->callback([&] {
    action = [](const Arguments& a) {
      fmt::print("{}\n", fetch_corpus(a.corpus, corpus_cache()).folder.string());
      return static_cast<int>(kDone);
    };
  });
}

/// CLI11 would only say that a command is required.
void check_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::string known;
  for (const auto* command : app.get_subcommands({})) {
    if (command->get_name() == argv[1]) return;
    known += (known.empty() ? "" : ", ") + command->get_name();
  }
  throw ExitError(kUsage, fmt::format("there is no command \"{}\"; known: {}", argv[1], known));
}

int exit_code_of(db::Trouble trouble) {
  switch (trouble) {
    case db::Trouble::foreign:
    case db::Trouble::newer:
    case db::Trouble::query:
    case db::Trouble::state: return kUsage;
    case db::Trouble::corrupt:
    case db::Trouble::environment: return kEnvironment;
  }
  return kEnvironment;
}

int complain(const std::exception& error, int code) {
  const auto line = fmt::format("tuneonce: {}\n", error.what());
  std::fwrite(line.data(), 1, line.size(), stderr);  // fmt::print would throw where stderr is closed
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App app(
      "Tune a small dense model once; transfer to any Mixture-of-Experts shape by rule; judge drift.",
      "tuneonce");
  Arguments arguments;
  Action action;
  app.require_subcommand(1);
  app.fallthrough();
  app.set_version_flag("--version", std::string("tuneonce ") + TUNEONCE_VERSION);
  app.add_flag("-v,--verbose", arguments.console.verbose, "a message for every trial");
  app.add_flag("-q,--quiet", arguments.console.quiet, "errors only");
  app.add_option("--log-file", arguments.console.log_file, "also write every message here, with its time");
  add_commands(app, arguments, action);
  try {
    check_command(app, argc, argv);
    app.parse(argc, argv);
    const int code = action(arguments);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
      throw ExitError(kEnvironment, "what was to be printed could not be written");
    return code;
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? kDone : kUsage;
  } catch (const ExitError& error) {
    return complain(error, error.code);
  } catch (const sweeps::StudyError& error) {
    return complain(error, kUsage);
  } catch (const db::StoreError& error) {
    return complain(error, exit_code_of(error.trouble));
  } catch (const std::invalid_argument& error) {
    return complain(error, kUsage);
  } catch (const std::exception& error) {
    return complain(error, kEnvironment);
  }
}
