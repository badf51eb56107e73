#pragma once

#include <string>

#include <CLI/CLI.hpp>

namespace orchestrator {

/// A script that completes commands and options; `shell` is bash, zsh or fish. Walks `app`, so that it knows what the
/// program knows.
std::string completion_script(const CLI::App& app, const std::string& shell);

/// The manual page, in roff.
std::string manual_page(const CLI::App& app);

}  // namespace orchestrator
