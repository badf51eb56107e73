// The command line's chapter "what a database says": status, results, best, query, logs, watch.
#include "orchestrator/cli.h"
#include "orchestrator/watch.h"

namespace orchestrator {

void add_read_commands(CLI::App& app, Arguments& arguments, Action& action) {
  const auto reader = [&](const std::string& name, const std::string& help,
                          const std::string& example, auto show) {
    auto* command = add_reader(app, arguments, name, help, example);
    add_database(command, arguments);
    command->callback([&action, show] {
      action = [show](const Arguments& a) { return show(choose_database(a.database), a.output_format()); };
    });
  };
  reader("status", "where a study stands", "status small.db", show_status);
  reader("results", "one row a trial", "results --format csv", show_results);
  reader("best", "the best trial of each model", "best --json", show_best);

  auto* query = add_reader(app, arguments, "query", "run one SELECT; tables and views: db/README.md",
                           "query \"SELECT lr, wd, loss FROM results ORDER BY loss LIMIT 5\"");
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

  auto* logs = add_command(app, "logs", "what a trial's workers printed", "logs 3 -f -n 20");
  logs->add_option("TRIAL", arguments.logs.trial, "number or name of the trial")->required();
  add_database(logs, arguments);
  auto* follow = logs->add_flag("-f,--follow", arguments.logs.follow, "go on until the trial has ended");
  logs->add_option("-n,--lines", arguments.logs.lines, "only the last so many lines")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 40));
  logs->add_option("--attempt", arguments.logs.attempt, "only this attempt, from 1")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))
      ->excludes(follow);
  logs->callback(
      [&] { action = [](const Arguments& a) { return show_logs(choose_database(a.database), a.logs); }; });

  auto* watching = add_command(app, "watch", "a live screen: what runs, the best so far, the sweep, failures; plain lines "
                               "in a pipe", "watch small.db");
  add_database(watching, arguments);
  watching->add_flag("--once", arguments.once, "one frame");
  watching->callback(
      [&] { action = [](const Arguments& a) { return watch(choose_database(a.database), a.once); }; });
}

}  // namespace orchestrator
