// The command line's chapter "the store and what it stands on": doctor, recover, export optuna.
#include "orchestrator/cli.h"
#include "orchestrator/store_commands.h"

namespace orchestrator {

void add_store_commands(CLI::App& app, Arguments& arguments, Action& action) {
  auto* doctor = add_reader(app, arguments, "doctor", "is everything there that a run needs; exit code 6 if not",
                            "doctor small.db");
  doctor->add_option("DB,--db", arguments.database, "also look at this database, and at the disk it lies on");
  doctor->callback([&] {
    action = [](const Arguments& a) {
      const auto database = a.database.empty() ? std::filesystem::path() : choose_database(a.database);
      const auto folder = database.has_parent_path() ? database.parent_path() : std::filesystem::path(".");
      return run_doctor(folder, database, a.output_format());
    };
  });

  auto* save = add_reader(app, arguments, "recover", "save what can be read of a damaged database in a new one",
                          "recover small.db --out small.recovered.db");
  save->add_option("DB,--db", arguments.database, "the damaged database; not a byte of it changes")->required();
  save->add_option("-o,--out", arguments.out, "the new database; it must not exist")->required();
  save->callback([&] {
    action = [](const Arguments& a) { return recover(a.database, a.out, a.output_format()); };
  });

  auto* out = add_command(app, "export", "the results in the form of another program",
                          "export optuna small.db --out optuna.db")
                  ->require_subcommand(1);
  auto* optuna = add_command(*out, "optuna", "an Optuna storage of its own (the database itself can be read as one)",
                             "export optuna small.db --out optuna.db");
  add_database(optuna, arguments);
  optuna->add_option("-o,--out", arguments.out, "the new file; it must not exist")->required();
  optuna->callback([&] {
    action = [](const Arguments& a) { return export_to_optuna(choose_database(a.database), a.out); };
  });
}

}  // namespace orchestrator
