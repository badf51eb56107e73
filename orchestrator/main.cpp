#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "db/sqlite.h"
#include "orchestrator/cli.h"
#include "orchestrator/cli_help.h"
#include "orchestrator/exit_code.h"
#include "sweeps/settings.h"
#include "sweeps/study_file.h"

namespace {

using namespace orchestrator;

/// CLI11 would only say that a command is required.
void check_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  const auto known = command_words(app);
  if (std::ranges::find(known, argv[1]) != known.end()) return;
  const auto hint = sweeps::nearest(argv[1], std::vector<std::string_view>(known.begin(), known.end()));
  throw ExitError(kUsage, fmt::format("there is no command \"{}\"; {}", argv[1],
                                      hint.empty() ? fmt::format("known: {}", fmt::join(known, ", "))
                                                   : fmt::format("did you mean \"{}\"?", hint)));
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

/// Whether nobody reads standard output any more, as in `tuneonce results | head`.
bool reader_has_gone() {
  pollfd output{STDOUT_FILENO, POLLOUT, 0};
  return ::poll(&output, 1, 0) > 0 && (output.revents & POLLERR) != 0;
}

/// What CLI11 found wrong, and for a word that begins with dashes the option that may be meant.
std::string usage_problem(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  const CLI::App* command = &app;
  std::string typed = "tuneonce";
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    typed += " " + command->get_name();
  }
  if (dynamic_cast<const CLI::ExtrasError*>(&error))
    for (int i = 1; i < argc; ++i) {
      std::string word = argv[i];
      word = word.starts_with("--") ? word.substr(0, word.find('=')) : word.substr(0, 2);  // -j4
      if (!word.starts_with("-") || command->get_option_no_throw(word) || app.get_option_no_throw(word))
        continue;
      const auto known = option_words(*command);
      const auto hint = sweeps::nearest(word, std::vector<std::string_view>(known.begin(), known.end()));
      return fmt::format("there is no option {}{}; `{} --help` lists them", word,
                         hint.empty() ? "" : fmt::format(", did you mean {}?", hint), typed);
    }
  return error.what();
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
    if (argc == 1) {
      fmt::print("{}", app.help());
      return kUsage;
    }
    check_command(app, argc, argv);
    app.parse(argc, argv);
    const int code = action(arguments);
    if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && !reader_has_gone())
      throw ExitError(kEnvironment, "what was to be printed could not be written");
    return code;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return complain(ExitError(kUsage, usage_problem(app, error, argc, argv)), kUsage);
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
