#pragma once

#include <filesystem>
#include <string>

#include "orchestrator/calculator.h"
#include "orchestrator/console.h"
#include "orchestrator/output.h"

namespace orchestrator {

/// Commands that read a database, while a run is on or long after; each prints to stdout and returns its exit
/// code. None starts a worker or changes a thing.

/// `named` is a database, a study file whose default database is meant, or empty: the only database of ours
/// in the current folder. Throws ExitError{kUsage} when there is none or more than one.
std::filesystem::path choose_database(const std::string& named);

int show_status(const std::filesystem::path& database, Format format);
int show_results(const std::filesystem::path& database, Format format);
int show_best(const std::filesystem::path& database, Format format);
int show_query(const std::filesystem::path& database, const std::string& sql, double seconds, Format format);

int show_fit(const std::filesystem::path& database, Format format);
int show_transfer(const std::filesystem::path& database, Format format);
/// The same from shapes and values on the command line; opens nothing.
int show_calculated(const CalculatorOptions& options, Format format);
/// `trend`: the line through the drifts of several targets, in place of the targets.
int show_drift(const std::filesystem::path& database, bool trend, Format format);
/// Writes the report from the database; `file` empty: the database's name with .html. With a folder for `charts`,
/// also its pictures that stand alone.
int make_report(const std::filesystem::path& database, std::filesystem::path file,
                const std::filesystem::path& charts);

}  // namespace orchestrator
