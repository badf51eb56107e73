// The command line's chapter "from a study to its verdict": plan, run.
#include "orchestrator/cli.h"

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
      ->add_option("--checkpoint-every", arguments.run.checkpoint_seconds,
                   "seconds between checkpoints of a trial")
      ->check(above_zero());
  command->add_flag("--accept-change", arguments.run.accept_change,
                    "go on with an edited study although finished trials no longer belong to it");
  command->callback([&] {
    action = [](const Arguments& a) {
      Console console(a.console);
      return run_study(a.run, console);
    };
  });
}

}  // namespace

void add_run_commands(CLI::App& app, Arguments& arguments, Action& action) {
  auto* plan = add_command(app, "plan", "show the resolved study, its trials, cost and transfer factors; write nothing",
                           "plan study.toml");
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
}

}  // namespace orchestrator
