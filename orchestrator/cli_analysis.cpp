// The command line's chapter "one stage alone": fit, transfer, drift, report.
#include <algorithm>

#include <fmt/format.h>

#include "orchestrator/cli.h"

namespace orchestrator {
namespace {

constexpr const char* kCalculatorExample =
    "--lr 1e-3 --wd 0.1 --init-std 0.01 --proxy width=128,depth=32,steps=25000 --target "
    "128e8a1s,width=1024,steps=100000";

/// `transfer` reads a database, or calculates from shapes and values that are given here.
void add_transfer(CLI::App& app, Arguments& arguments, Action& action) {
  auto* command =
      add_reader(app, arguments, "transfer",
                 "every factor and value of every target, from the database; or, with --proxy and "
                 "--target, of the shapes given here",
                 std::string("transfer ") + kCalculatorExample);
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
                         "that was trained elsewhere",
                         "fit --csv examples/csv/dense.csv --steps 1500");
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
                           "sweeps that were trained elsewhere",
                           "drift --proxy examples/csv/dense.csv --target examples/csv/moe.csv");
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

}  // namespace

void add_analysis_commands(CLI::App& app, Arguments& arguments, Action& action) {
  add_fit_and_drift(app, arguments, action);
  add_transfer(app, arguments, action);

  auto* report = add_command(app, "report", "write the HTML report from the database", "report small.db -o small.html");
  add_database(report, arguments);
  report->add_option("-o,--report", arguments.report, "file; default: the database's name with .html");
  report->add_option("--charts", arguments.charts, "folder that also gets the picture of all LR curves as SVG");
  report->callback([&] {
    action = [](const Arguments& a) { return make_report(choose_database(a.database), a.report, a.charts); };
  });
}

}  // namespace orchestrator
