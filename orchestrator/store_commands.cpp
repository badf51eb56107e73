#include "orchestrator/store_commands.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fmt/format.h>

#include "db/health.h"
#include "db/optuna.h"
#include "db/query.h"
#include "db/sqlite.h"
#include "orchestrator/build_info.h"
#include "orchestrator/exit_code.h"
#include "orchestrator/output.h"
#include "orchestrator/owner_lock.h"
#include "orchestrator/spec_codec.h"
#include "orchestrator/worker_process.h"
#include "sweeps/study.h"

namespace orchestrator {
namespace {

namespace fs = std::filesystem;

void print(const db::Table& table, Format format) {
  const auto text = format_table(table, format);
  std::fwrite(text.data(), 1, text.size(), stdout);
}

// --- doctor ---

enum class Health { ok, warning, problem };

struct Finding {
  std::string check;
  Health health = Health::ok;
  std::string text;
};
using Findings = std::vector<Finding>;

std::string_view name(Health health) {
  switch (health) {
    case Health::ok: return "ok";
    case Health::warning: return "warning";
    case Health::problem: return "problem";
  }
  return "";
}

awaitable<Finding> greet_worker(std::string check, Launcher& launcher) {
  constexpr auto kPatience = std::chrono::seconds(60);  // LibTorch takes its time on a cold disk
  Finding finding{std::move(check), Health::problem, launcher.program() + ": "};
  const auto worker = launcher.start({"cpu"});
  std::string printed;
  worker->on_output = [&](std::string_view text) { printed.append(text.substr(0, 1000)); };
  try {
    const auto message = co_await worker->receive(kPatience);
    const auto* hello = message ? std::get_if<worker::Hello>(&*message) : nullptr;
    if (!hello)
      finding.text += "did not begin with a hello";
    else if (hello->protocol != worker::kProtocolVersion)
      finding.text += fmt::format("speaks protocol {}, this tuneonce speaks {}; build both from one source tree",
                                  hello->protocol, worker::kProtocolVersion);
    else
      finding = {finding.check, Health::ok, fmt::format("{}, build {}", launcher.program(), hello->build)};
  } catch (const std::exception& error) {
    finding.text += error.what();
  }
  worker->kill();
  const auto end = co_await worker->end(std::chrono::seconds(5));
  if (finding.health != Health::ok && !printed.empty()) finding.text += "; it printed: " + printed;
  co_return finding;
}

Finding check_worker(std::string check, models::ModelFamily family) {
  try {
    asio::io_context context{1};
    ProcessLauncher launcher(context, find_worker_program(family));
    Finding finding;
    std::exception_ptr error;
    asio::co_spawn(context, greet_worker(check, launcher), [&](std::exception_ptr thrown, Finding found) {
      error = thrown;
      finding = std::move(found);
      context.stop();
    });
    context.run();
    if (error) std::rethrow_exception(error);
    return finding;
  } catch (const std::exception& error) {
    return {check, Health::problem, error.what()};
  }
}

Findings check_devices() {
  Findings findings{{"cores", Health::ok, fmt::format("{}", usable_cores())}};
  const auto gpus = visible_gpus();
  if (gpus.empty()) findings.push_back({"GPU", Health::ok, "none, or no NVIDIA driver; trials run on the CPU"});
  for (const auto& gpu : gpus)
    findings.push_back(
        {"GPU", Health::ok,
         fmt::format("{}, {}, {}", gpu.name, short_size(static_cast<std::uintmax_t>(gpu.memory_bytes)), gpu.uuid)});
  return findings;
}

Finding check_sqlite() {
  const bool good = db::sqlite_suffices();
  return {"SQLite", good ? Health::ok : Health::problem, db::sqlite_version() + (good ? "" : "; 3.37 is needed")};
}

Finding check_disk(const fs::path& folder) {
  // What a run asks for unless its study says otherwise, and ten times that.
  const auto needed = static_cast<std::uintmax_t>(sweeps::DiskSpec{}.keep_free);
  std::error_code error;
  const auto space = fs::space(folder, error);
  if (error) return {"disk", Health::problem, fmt::format("{}: {}", folder.string(), error.message())};
  const auto free = space.available;
  return {"disk", free < needed ? Health::problem : free < 10 * needed ? Health::warning : Health::ok,
          fmt::format("{} free in {}", short_size(free), folder.string())};
}

/// Two descriptors of one file: the second must not get what the first holds.
std::string lock_trouble(const fs::path& folder) {
  auto name = (folder / ".tuneonce-doctor-XXXXXX").string();
  const int first = ::mkostemp(name.data(), O_CLOEXEC);
  if (first < 0) return fmt::format("no file can be made in {}: {}", folder.string(), std::strerror(errno));
  const int second = ::open(name.c_str(), O_RDWR | O_CLOEXEC);
  ::unlink(name.c_str());
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  std::string trouble;
  if (::fcntl(first, F_OFD_SETLK, &lock) != 0)
    trouble = fmt::format("a file in {} cannot be locked: {}", folder.string(), std::strerror(errno));
  else if (second >= 0 && ::fcntl(second, F_OFD_SETLK, &lock) == 0)
    trouble = fmt::format("a locked file in {} can be locked again: two runs could own one database", folder.string());
  ::close(first);
  if (second >= 0) ::close(second);
  return trouble;
}

Finding check_locks(const fs::path& folder) {
  if (const auto trouble = lock_trouble(folder); !trouble.empty()) return {"locks", Health::problem, trouble};
  const auto shared = shared_file_system(folder);
  if (shared.empty()) return {"locks", Health::ok, "work in " + folder.string()};
  return {"locks", Health::warning,
          fmt::format("{} is on {}: keep the database on a local disk, where SQLite's log and the lock hold",
                      folder.string(), shared)};
}

std::int64_t ask(const fs::path& database, const std::string& sql) {
  return std::get<std::int64_t>(db::run_query(database, sql).rows.at(0).at(0));
}

Findings check_database(const fs::path& database) {
  Findings findings;
  try {
    if (!db::is_our_database(database))
      return {{"database", Health::problem, fmt::format("{}: there is no such database", database.string())}};
  } catch (const db::StoreError& error) {
    return {{"database", Health::problem, error.what()}};
  }
  const auto problems = db::problems_of(database);
  for (const auto& problem : problems) findings.push_back({"database", Health::problem, problem});
  if (!problems.empty()) return findings;
  const auto version = ask(database, "SELECT user_version FROM pragma_user_version");
  findings.push_back({"database", Health::ok,
                      fmt::format("{}: sound, {} trials, {}", database.string(), ask(database, "SELECT count(*) FROM trial"),
                                  short_size(fs::file_size(database)))});
  findings.push_back({"schema", Health::ok,
                      version == db::kSchemaVersion
                          ? fmt::format("{}", version)
                          : fmt::format("{}; `tuneonce run` makes it {} after a copy", version, db::kSchemaVersion)});
  const auto owner = OwnerLock::owner(database);
  findings.push_back({"owner", Health::ok, owner ? *owner : "none; no run is on"});
  return findings;
}

}  // namespace

int run_doctor(const fs::path& folder, const fs::path& database, Format format) {
  Findings findings{{"tuneonce", Health::ok, fmt::format("{}, commit {}", TUNEONCE_VERSION, git_commit())}};
  findings.push_back(check_worker("worker", models::ModelFamily::language_model));  // trains diffusion models, too
  findings.push_back(check_worker("command", models::ModelFamily::command));
  for (auto& finding : check_devices()) findings.push_back(std::move(finding));
  findings.push_back(check_sqlite());
  findings.push_back(check_disk(folder));
  findings.push_back(check_locks(folder));
  if (!database.empty())
    for (auto& finding : check_database(database)) findings.push_back(std::move(finding));
  db::Table table;
  table.columns = {"check", "result", "finding"};
  bool problem = false;
  for (const auto& finding : findings) {
    table.rows.push_back({finding.check, std::string(name(finding.health)), finding.text});
    problem |= finding.health == Health::problem;
  }
  print(table, format);
  return problem ? kEnvironment : kDone;
}

int recover(const fs::path& database, const fs::path& copy, Format format) {
  if (const auto owner = OwnerLock::owner(database))
    throw ExitError(kOwned, fmt::format("{}: a run is working on it ({}); stop it first", database.string(), *owner));
  if (!fs::exists(database))
    throw ExitError(kUsage, fmt::format("{}: there is no such database", database.string()));
  const auto tables = db::recover_database(database, copy, spec_codec());
  db::Table rows;
  rows.columns = {"table", "rows", "left_out", "read"};
  bool whole = true;
  for (const auto& table : tables) {
    rows.rows.push_back({table.table, table.rows, table.left_out, std::string(table.whole ? "whole" : "in part")});
    whole &= table.whole && table.left_out == 0;
  }
  print(rows, format);
  std::fprintf(stderr, "tuneonce: %s is sound; %s is as it was. %s\n", copy.c_str(), database.c_str(),
               whole ? "Every table was read whole." : "Rows are lost: trials among them are trained anew by `tuneonce run`.");
  return kDone;
}

int export_to_optuna(const fs::path& database, const fs::path& copy) {
  db::export_optuna(database, copy);
  std::fprintf(stdout, "%s\n", copy.c_str());
  return kDone;
}

}  // namespace orchestrator
