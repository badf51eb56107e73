// The command line's chapter "from a study to its verdict": plan, run, retry, cancel.
#include "orchestrator/cli.h"
#include "orchestrator/trial_commands.h"

namespace orchestrator {
namespace {

void add_run(CLI::App& app, Arguments& arguments, Action& action, const std::string& name,
             const std::string& help) {
  auto* command = add_command(app, name, help, name + " study.toml -j 4");
  command->add_option("STUDY", arguments.run.study_file, "study file (TOML)")->required();
  command->add_option("--db", arguments.run.database, "database; default: <study name>.db in this folder");
  command->add_option("--report", arguments.run.report,
                      "HTML report; default: the database's name with .html");
  command->add_option("--gpus", arguments.run.gpus, "numbers of the GPUs to use, as in 0,2; default: the study's devices");
  command->add_option("-j,--workers", arguments.run.num_workers, "workers; default: one a GPU, or one a core")
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--stall-timeout", arguments.run.stall_seconds,
                   "seconds of silence after which a worker is killed")
      ->check(above_zero());
  command
      ->add_option("--memory-timeout", arguments.run.memory_seconds,
                   "seconds after which a GPU whose memory others hold gets no more work; default: 60")
      ->check(above_zero());
  command
      ->add_option("--checkpoint-every", arguments.run.checkpoint_seconds,
                   "seconds between checkpoints of a trial")
      ->check(above_zero());
  command->add_flag("--accept-change", arguments.run.accept_change,
                    "go on with an edited study although finished trials no longer belong to it");
  command
      ->add_option("--max-failures", arguments.run.max_failures,
                   "stop once so many trials have failed: a number, or as in 10% of those that ended, from the fifth on")
      ->check(CLI::Validator([](const std::string& text) { return max_failures_problem(text); }, "N or N%"));
  command->add_flag("--dry-run", arguments.dry_run, "the same as plan: writes nothing");
  command->callback([&] {
    action = [](const Arguments& a) {
      Console console(a.console);
      if (a.dry_run) return plan_study({.study_file = a.run.study_file, .database = a.run.database}, console);
      return run_study(a.run, console);
    };
  });
}

/// `retry` and `cancel`: some trials, or all that the flag `all` means.
void add_request(CLI::App& app, Arguments& arguments, Action& action, ControlRequest::Command asked,
                 const std::string& name, const std::string& help, const std::string& example,
                 const std::string& all, const std::string& all_help,
                 int (*carry_out)(const std::filesystem::path&, const ControlRequest&, Console&)) {
  auto* command = add_command(app, name, help, example);
  command->add_option("TRIAL", arguments.request.trials, "numbers or names of trials");
  command->add_flag(all, arguments.request.all, all_help);
  command->add_option("--db", arguments.database,
                      "database, or study file; default: the only tuneonce database in this folder");
  command->callback([&arguments, &action, asked, name, all, carry_out] {
    auto& request = arguments.request;
    request.command = asked;
    if (request.all == !request.trials.empty())
      throw ExitError(kUsage, name + " takes trials, or " + all + "; `tuneonce results` lists the trials");
    action = [carry_out](const Arguments& a) {
      Console console(a.console);
      return carry_out(choose_database(a.database), a.request, console);
    };
  });
}

}  // namespace

void add_run_commands(CLI::App& app, Arguments& arguments, Action& action) {
  auto* plan = add_command(app, "plan", "show the resolved study, its trials, cost and transfer factors; write nothing",
                           "plan study.toml");
  plan->add_option("STUDY", arguments.plan.study_file, "study file (TOML)")->required();
  auto* diff = plan->add_flag(
      "--diff", arguments.plan.diff,
      "what has changed since the database's last run: settings, trials added, kept and dropped");
  plan->add_option("--db", arguments.plan.database,
                   "database of --diff; default: <study name>.db in this folder")
      ->needs(diff);
  plan->add_flag("--no-measure", arguments.no_measure, "leave out the timing of a few steps");
  plan->callback([&] {
    action = [](const Arguments& a) {
      Console console(a.console);
      auto options = a.plan;
      options.measure = !a.no_measure;
      return plan_study(options, console);
    };
  });

  add_run(app, arguments, action, "run",
          "tune, fit, transfer, train the targets, judge drift; from wherever it stands");
  add_run(app, arguments, action, "resume", "the same as run");

  add_request(app, arguments, action, ControlRequest::Command::retry, "retry",
              "let failed trials wait again, also while a run is on", "retry --failed", "--failed",
              "every trial that has failed", retry_trials);
  add_request(app, arguments, action, ControlRequest::Command::cancel, "cancel",
              "stop a trial of the run that is on; it counts as failed", "cancel 7", "--all",
              "the run itself, as Ctrl-C does: what runs is saved", cancel_trials);
}

}  // namespace orchestrator
