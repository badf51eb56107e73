#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

namespace orchestrator {

/// A script that completes commands and options; `shell` is bash, zsh or fish. Walks `app`, so that it knows what the
/// program knows.
std::string completion_script(const CLI::App& app, const std::string& shell);

/// What a person may type after a command: its options, as in "--db" and "-j", and the commands within it.
std::vector<std::string> option_words(const CLI::App& app);
std::vector<std::string> command_words(const CLI::App& app);

/// The manual page, in roff.
std::string manual_page(const CLI::App& app);

}  // namespace orchestrator
