#include <csignal>
#include <cstdio>

#include <fmt/format.h>

#include "db/sqlite.h"
#include "orchestrator/cli.h"
#include "orchestrator/exit_code.h"
#include "sweeps/study_file.h"

namespace {

using namespace orchestrator;

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
    case db::Trouble::owned: return kOwned;
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
  add_run_commands(app, arguments, action);
  add_read_commands(app, arguments, action);
  add_analysis_commands(app, arguments, action);
  add_check_commands(app, arguments, action);
  add_data_commands(app, arguments, action);
  add_store_commands(app, arguments, action);
  add_help_commands(app, arguments, action);
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
