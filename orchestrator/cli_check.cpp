// The command line's chapter "is a rule implemented right": check coord, check init, check loss.
#include "orchestrator/cli.h"

namespace orchestrator {

void add_check_commands(CLI::App& app, Arguments& arguments, Action& action) {
  auto* check =
      add_command(app, "check", "proofs that a rule is implemented right", "check init --rule sp")->require_subcommand(1);
  const auto add = [&](const std::string& name, const std::string& help,
                       int (*run)(const CheckOptions&, Console&)) {
    auto* command = add_reader(*check, arguments, name, help, "check " + name + " --rule mup");
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

}  // namespace orchestrator
