#include <algorithm>
#include <csignal>
#include <cstdio>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "db/sqlite.h"
#include "orchestrator/check.h"
#include "orchestrator/commands.h"
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
  std::string study, database, charts, format = "table", sql, trial, report, corpus;
  double query_seconds = 30;
  bool json = false, no_measure = false;

  Format output_format() const { return json ? Format::json : parse_format(format); }
};

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
      group(command->add_option("--lr", c.tuned.lr, "the proxy's optimum")->check(CLI::PositiveNumber)),
      group(command->add_option("--wd", c.tuned.wd, "the proxy's optimum")->check(CLI::NonNegativeNumber)),
      group(command->add_option("--init-std", c.tuned.init_std, "the proxy's")->check(CLI::PositiveNumber))};
  std::vector<CLI::Option*> all = needed;
  const auto share = CLI::Range(0.0, 1.0);
  for (auto* option :
       {command->add_option("--rule", c.rule,
                            "complete-mue, sp, mup, completep, complete-dp, mup-moe, jiang, mssp, u-mup"),
        command->add_option("--family", c.family, "language_model or diffusion_model"),
        command->add_option("--wd-width", c.wd_width, "scaled, literal or independent"),
        command->add_option("--head", c.head, "published, mup or complete-dp"),
        command->add_option("--depth-exponent", c.options.depth_exponent, "alpha of CompleteP")
            ->check(CLI::Range(0.0, 2.0)),
        command->add_option("--duration-exponent", c.options.duration_exponent, "0.5 is Complete(d)P")
            ->check(CLI::Range(0.0, 2.0)),
        command->add_option("--mssp-regime", c.options.mssp_regime, "1, 2 or 3")->check(CLI::Range(1, 3)),
        command->add_option("--beta1", c.tuned.beta1, "of the proxy")->check(share),
        command->add_option("--beta2", c.tuned.beta2, "of the proxy")->check(share),
        command->add_option("--eps", c.tuned.eps, "of the proxy")->check(CLI::PositiveNumber)})
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
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--checkpoint-every", arguments.run.checkpoint_seconds,
                   "seconds between checkpoints of a trial")
      ->check(CLI::PositiveNumber);
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
        ->check(CLI::PositiveNumber);
    command->add_option("--init-std", options.init_std, "of the proxy; default: the study's")
        ->check(CLI::PositiveNumber);
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
      ->check(CLI::PositiveNumber);
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

  reader("fit", "the proxy's optimum with its uncertainty, from the database", show_fit);
  add_transfer(app, arguments, action);
  reader("drift", "did the targets' optima move, from the database", show_drift);

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
