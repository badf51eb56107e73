// What shells and man know of the command line, written from the command line itself.
#include "orchestrator/cli_help.h"

#include <functional>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "orchestrator/cli.h"

namespace orchestrator {

std::vector<std::string> option_words(const CLI::App& app) {
  std::vector<std::string> words;
  for (const auto* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) words.push_back("--" + name);
    for (const auto& name : option->get_snames()) words.push_back("-" + name);
  }
  return words;
}
std::vector<std::string> command_words(const CLI::App& app) {
  std::vector<std::string> words;
  for (const auto* command : app.get_subcommands({})) words.push_back(command->get_name());
  if (app.get_name() == "completion") words = {"bash", "zsh", "fish"};
  return words;
}

namespace {

constexpr const char* kFormats = "table json jsonl csv";
constexpr const char* kShells = "bash zsh fish";

/// A command by the words that lead to it, "check coord"; "" is the program itself.
struct Node {
  std::string path;
  const CLI::App* app;
};
void walk(const CLI::App& app, const std::string& path, std::vector<Node>& nodes) {
  nodes.push_back({path, &app});
  for (const auto* command : app.get_subcommands({}))
    walk(*command, path.empty() ? command->get_name() : path + " " + command->get_name(), nodes);
}
std::vector<Node> all_commands(const CLI::App& app) {
  std::vector<Node> nodes;
  walk(app, "", nodes);
  return nodes;
}

/// Lines of a `case` that follow the commands typed so far, and offer what may come next.
std::string cases_of(const CLI::App& app, const std::function<std::string(const Node&)>& offer, std::string& steps) {
  std::string cases;
  for (const auto& node : all_commands(app)) {
    if (!node.path.empty()) {
      const auto space = node.path.rfind(' ');
      steps += fmt::format("{}\"{}\"", steps.empty() ? "" : "|",
                           space == std::string::npos ? " " + node.path : node.path);
    }
    cases += fmt::format("    \"{}\") {} ;;\n", node.path, offer(node));
  }
  return cases;
}

std::string bash_script(const CLI::App& app) {
  std::string steps;
  const auto cases = cases_of(
      app,
      [](const Node& node) {
        return fmt::format("words=\"{}\"; options=\"{}\"", fmt::join(command_words(*node.app), " "),
                           fmt::join(option_words(*node.app), " "));
      },
      steps);
  return fmt::format(R"(# bash completion of tuneonce: source <(tuneonce completion bash)
_tuneonce() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} typed="" word words options
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$typed $word" in {}) typed=${{typed:+$typed }}$word ;; esac
  done
  case ${{COMP_WORDS[COMP_CWORD-1]}} in
    --format) COMPREPLY=($(compgen -W "{}" -- "$current")); return ;;
  esac
  case $typed in
{}  esac
  [[ $current == -* ]] && words=$options
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _tuneonce tuneonce
)",
                     steps, kFormats, cases);
}

std::string zsh_script(const CLI::App& app) {
  std::string steps;
  const auto cases = cases_of(
      app,
      [](const Node& node) {
        return fmt::format("names=({}); options=({})", fmt::join(command_words(*node.app), " "),
                           fmt::join(option_words(*node.app), " "));
      },
      steps);
  return fmt::format(R"(#compdef tuneonce
# zsh completion of tuneonce: source <(tuneonce completion zsh)
_tuneonce() {{
  local typed="" word
  local -a names options
  for word in ${{words[2,CURRENT-1]}}; do
    case "$typed $word" in {}) typed=${{typed:+$typed }}$word ;; esac
  done
  if [[ ${{words[CURRENT-1]}} == --format ]]; then compadd {}; return; fi
  case $typed in
{}  esac
  if [[ ${{words[CURRENT]}} == -* ]]; then
    compadd -- $options
  elif (( $#names )); then
    compadd -- $names
  else
    _files
  fi
}}
compdef _tuneonce tuneonce
)",
                     steps, kFormats, cases);
}

std::string fish_quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return quoted + "'";
}

std::string fish_script(const CLI::App& app) {
  std::string script = "# fish completion of tuneonce: tuneonce completion fish | source\n";
  for (const auto& node : all_commands(app)) {
    const auto last = node.path.substr(node.path.rfind(' ') + 1);
    const auto when = node.path.empty() ? "__fish_use_subcommand" : "__fish_seen_subcommand_from " + last;
    for (const auto* command : node.app->get_subcommands({}))
      script += fmt::format("complete -c tuneonce -n '{}' -a {} -d {}\n", when, command->get_name(),
                            fish_quoted(command->get_description()));
    for (const auto* option : node.app->get_options()) {
      if (option->get_lnames().empty() && option->get_snames().empty()) continue;
      script += fmt::format("complete -c tuneonce -n '{}'", when);
      for (const auto& name : option->get_lnames()) script += " -l " + name;
      for (const auto& name : option->get_snames()) script += " -s " + name;
      if (option->get_items_expected_max() > 0) script += " -r";
      script += fmt::format(" -d {}\n", fish_quoted(option->get_description()));
    }
  }
  script += fmt::format("complete -c tuneonce -n '__fish_seen_subcommand_from completion' -a '{}'\n", kShells);
  return script + fmt::format("complete -c tuneonce -l format -x -a '{}'\n", kFormats);
}

/// Text that roff takes as it is.
std::string roff(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\')
      escaped += "\\e";
    else if (c == '-')
      escaped += "\\-";
    else if ((c == '.' || c == '\'') && (escaped.empty() || escaped.back() == '\n'))
      escaped += std::string("\\&") + c;
    else
      escaped += c;
  }
  return escaped;
}

std::string roff_options(const CLI::App& app) {
  std::string text;
  for (const auto* option : app.get_options()) {
    const auto value = option->get_items_expected_max() > 0 && !option->get_positional() ? " VALUE" : "";
    text += fmt::format(".TP\n\\fB{}\\fR{}\n{}\n", roff(option->get_name(option->get_positional(), true)), value,
                        roff(option->get_description()));
  }
  return text;
}

}  // namespace

std::string completion_script(const CLI::App& app, const std::string& shell) {
  return shell == "bash" ? bash_script(app) : shell == "zsh" ? zsh_script(app) : fish_script(app);
}

std::string manual_page(const CLI::App& app) {
  std::string page = fmt::format(R"(.TH TUNEONCE 1 "" "tuneonce {}" "User Commands"
.SH NAME
tuneonce \- tune a dense proxy once, transfer to any Mixture\-of\-Experts shape
.SH SYNOPSIS
.B tuneonce
.I COMMAND
[\fIOPTIONS\fR]
.SH DESCRIPTION
{}
.SH OPTIONS
{}.SH COMMANDS
)",
                                 TUNEONCE_VERSION, roff(app.get_description()), roff_options(app));
  for (const auto& node : all_commands(app)) {
    if (node.path.empty()) continue;
    page += fmt::format(".SS {}\n{}\n{}.PP\n{}\n", roff(node.path), roff(node.app->get_description()),
                        roff_options(*node.app), roff(node.app->get_footer()));
  }
  return page + R"(.SH EXIT STATUS
.TP
0
done, every gate passed
.TP
1
some trials failed after their retries
.TP
2
usage, study file or data
.TP
3
DRIFT, or a check failed
.TP
4
no verdict yet
.TP
5
another run owns the database
.TP
6
environment: no such device, disk full, corrupt store
.TP
130, 143
stopped by a signal; the same command goes on
)";
}

void add_help_commands(CLI::App& app, Arguments& arguments, Action& action) {
  auto* completion = add_command(app, "completion", "print a script that completes commands and options in a shell",
                                 "completion bash > ~/.local/share/bash-completion/completions/tuneonce");
  completion->add_option("SHELL", arguments.shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completion->callback([&app, &action] {
    action = [&app](const Arguments& a) {
      fmt::print("{}", completion_script(app, a.shell));
      return static_cast<int>(kDone);
    };
  });
  auto* man = add_command(app, "man", "print the manual page, in roff", "man | man -l -");
  man->callback([&app, &action] {
    action = [&app](const Arguments&) {
      fmt::print("{}", manual_page(app));
      return static_cast<int>(kDone);
    };
  });
}

}  // namespace orchestrator
