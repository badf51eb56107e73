#include "tests/support/invariants.h"

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <sstream>
#include <thread>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>

#include "db/query.h"
#include "db/sqlite.h"
#include "tests/support/catch.h"

namespace test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMark = "TUNEONCE_TEST_ID";
constexpr const char* kToldLog = "told.log";

double soak() {
  const char* text = std::getenv("TUNEONCE_SOAK");
  return text ? std::strtod(text, nullptr) : 0;
}

std::uint64_t choose_seed() {
  if (const char* text = std::getenv("TUNEONCE_SEED")) return std::strtoull(text, nullptr, 10);
  return soak() > 0 ? std::random_device{}() : 20261125;
}

std::string replaced(std::string text, const Changes& changes) {
  for (const auto& [from, to] : changes) {
    const auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    text.replace(at, from.size(), to);
  }
  return text;
}

const std::string kStudy = study_head("five", 20) + R"([space]
lr = { values = [8e-4, 1.6e-3, 3.2e-3, 6.4e-3, 1.28e-2] }
wd = { values = [0.05, 0.07, 0.1, 0.14, 0.2] }
[search]
method = "grid"
extensions = 0
early_stopping = false
[retry]
crash = 100
backoff = "10ms"
[disk]
keep_free = "1B"
)";

/// What the curves of each trial add up to; not those of other metrics, which only some behaviours of the
/// worker have.
constexpr const char* kCurves =
    "(SELECT trial, count(*) AS points, printf('%.9g', total(value * (1 + step))) AS area FROM curves "
    "WHERE metric IN ('train_loss', 'eval_loss') GROUP BY trial)";

/// How every trial that has ended ended, by which attempt, and with which curves.
std::map<std::int64_t, std::string> endings(const fs::path& database) {
  std::map<std::int64_t, std::string> rows;
  const auto table = db::run_query(database, fmt::format(R"(
    SELECT trial.id, printf('%d %.5f %.17g %d %d %d %s', trial.state, trial.loss, trial.loss, trial.steps,
                            attempt.number, curve.points, curve.area)
    FROM trial JOIN attempt ON attempt.trial_id = trial.id AND attempt.state = trial.state
    LEFT JOIN {} AS curve ON curve.trial = trial.id
    WHERE trial.state IN (2, 3))",
                                                         kCurves));
  for (const auto& row : table.rows) rows[std::get<std::int64_t>(row[0])] = std::get<std::string>(row[1]);
  return rows;
}

/// What the runs said of their trials: how they ended, as endings() begins, and how often they were lost or
/// failed.
struct Told {
  std::map<std::int64_t, std::string> endings;
  std::map<std::int64_t, std::int64_t> losses;
};
Told read_told(const fs::path& log) {
  static const std::regex ending(
      " trial ([0-9]+) \".*\"(?:: loss ([^ ]+) in|: (diverged) at| (was lost|failed:))");
  Told told;
  std::istringstream lines(read_text(log));
  std::smatch match;
  for (std::string line; std::getline(lines, line);) {
    if (!std::regex_search(line, match, ending)) continue;
    const auto trial = std::stoll(match[1]);
    if (match[4].matched)
      ++told.losses[trial];
    else
      told.endings[trial] = match[3].matched ? "3 " : "2 " + match[2].str() + ' ';
  }
  return told;
}

}  // namespace

int times(int ci, int soak_count) {
  const double share = soak();
  return share > 0 ? std::max(ci, static_cast<int>(share * soak_count)) : ci;
}

Random::Random(const std::string& test) {
  const auto seed = choose_seed();
  std::printf("%s: TUNEONCE_SEED=%llu\n", test.c_str(), static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  generator_.seed(seed);
}

std::int64_t Random::between(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(generator_);
}

void Random::pause(int low_ms, int high_ms) {
  std::this_thread::sleep_for(std::chrono::milliseconds(between(low_ms, high_ms)));
}

DisturbedSweep::DisturbedSweep(const Changes& changes, const fs::path& database)
    : mark_(folder_.path().filename()), database_(database) {
  std::ofstream(folder_ / "five.toml") << replaced(kStudy, changes);
}

fs::path DisturbedSweep::database() const {
  return database_.is_absolute() ? database_ : folder_.path() / database_;
}

std::unique_ptr<Command> DisturbedSweep::start(const RunSetup& setup) const {
  std::vector<std::string> arguments = {
      "run", "five.toml", "--db", database_.string(), "--checkpoint-every", "0.001", "--log-file", kToldLog};
  if (setup.workers > 0) arguments.insert(arguments.end(), {"-j", std::to_string(setup.workers)});
  arguments.insert(arguments.end(), setup.more.begin(), setup.more.end());
  auto environment = setup.environment;
  environment[kMark] = mark_;
  environment["TUNEONCE_FAKE"] = setup.behaviour + " dir=" + folder_.path().string();
  if (!setup.fault.empty()) {
    environment["LD_PRELOAD"] = TUNEONCE_FAULT_SHIM;
    environment["TUNEONCE_FAULT"] = setup.fault;
  }
  return std::make_unique<Command>(folder_.path(), arguments, environment);
}

Ended DisturbedSweep::command(const std::vector<std::string>& arguments) const {
  return tuneonce(folder_.path(), arguments, {{kMark, mark_}});
}

int DisturbedSweep::said(const std::string& text) const {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(folder_.path()))
    count += entry.path().filename().string().starts_with("err-") &&
             read_text(entry.path()).find(text) != std::string::npos;
  return count;
}

std::vector<std::int64_t> DisturbedSweep::numbers(const std::string& sql) const {
  std::vector<std::int64_t> values;
  try {
    for (const auto& row : db::run_query(database(), sql).rows)
      values.push_back(std::get<std::int64_t>(row.at(0)));
  } catch (const db::StoreError& error) {
    // The run has not made it yet, or is making it; SQL that is wrong would fail for ever.
    if (error.trouble == db::Trouble::query) throw;
  }
  return values;
}

std::int64_t DisturbedSweep::count(const std::string& what) const {
  const auto values = numbers("SELECT count(*) FROM " + what);
  return values.empty() ? 0 : values.front();
}

std::string DisturbedSweep::table(const std::filesystem::path& database) const {
  const auto sql = fmt::format(
      "SELECT results.trial, name, role, target, lr, wd, init_std, seed, state, loss, excess, steps, points, "
      "area "
      "FROM results LEFT JOIN {} AS curve ON curve.trial = results.trial ORDER BY results.trial",
      kCurves);
  const auto ended = command({"query", sql, database.string(), "--format", "csv"});
  INFO(ended.err);
  REQUIRE(ended.code == 0);
  return ended.out;
}

void DisturbedSweep::acknowledge() {
  try {
    for (auto& [trial, ending] : endings(database())) acknowledged_.try_emplace(trial, ending);
  } catch (const db::StoreError&) {
    // There is no database yet.
  }
}

std::vector<pid_t> DisturbedSweep::processes() const {
  const std::string wanted = std::string(kMark) + '=' + mark_;
  std::vector<pid_t> pids;
  std::error_code error;
  for (fs::directory_iterator entry("/proc", error), end; entry != end; entry.increment(error)) {
    const auto name = entry->path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (('\0' + read_text(entry->path() / "environ")).find('\0' + wanted + '\0') != std::string::npos)
      pids.push_back(static_cast<pid_t>(std::stol(name)));
  }
  return pids;
}

void DisturbedSweep::kill_all() const {
  for (const auto pid : processes()) ::kill(pid, SIGKILL);
}

const std::string& undisturbed_table() {
  static const std::string table = [] {
    const DisturbedSweep sweep;
    const auto ended = sweep.run();
    INFO(ended.err);
    REQUIRE(ended.code == 0);
    REQUIRE(sweep.count("trial WHERE state = 2") == 25);
    REQUIRE(sweep.count(fmt::format("{} WHERE points = 20 + 10", kCurves)) == 25);  // of training, held out
    return sweep.table();
  }();
  return table;
}

void check_invariants(const DisturbedSweep& sweep, bool killed) {
  std::vector<pid_t> left;
  const bool gone = eventually([&] { return (left = sweep.processes()).empty(); }, 5);
  CAPTURE(left);
  CHECK(gone);  // I5
  if (!fs::exists(sweep.database())) {
    CHECK(sweep.acknowledged_.empty());
    return;
  }
  {
    SQLite::Database database(sweep.database().string(), SQLite::OPEN_READONLY);
    CHECK(database.execAndGet("PRAGMA integrity_check").getString() == "ok");  // I1
    SQLite::Statement foreign_keys(database, "PRAGMA foreign_key_check");
    CHECK_FALSE(foreign_keys.executeStep());
  }
  const auto now = endings(sweep.database());
  for (const auto& [trial, ending] : sweep.acknowledged_) {  // I2
    CAPTURE(trial, ending);
    REQUIRE(now.contains(trial));
    CHECK(now.at(trial) == ending);
  }
  const auto told = read_told(sweep.file(kToldLog));
  for (const auto& [trial, ending] : told.endings) {
    CAPTURE(trial, ending);
    REQUIRE(now.contains(trial));
    CHECK_THAT(now.at(trial), Catch::Matchers::StartsWith(ending));
  }
  for (const auto& [trial, losses] : told.losses) {
    CAPTURE(trial);
    CHECK(sweep.count(fmt::format("attempt WHERE trial_id = {} AND state = 4 AND failure != 6", trial)) >=
          losses);
  }
  CHECK(sweep.count("(SELECT 1 FROM curve_chunk, json_each(steps) AS step "
                    "GROUP BY trial_id, attempt, metric, step.value HAVING count(*) > 1)") == 0);
  CHECK(sweep.count("(SELECT trial_id FROM attempt WHERE state IN (2, 3) GROUP BY 1 HAVING count(*) > 1)") ==
        0);  // I3
  CHECK(sweep.count("trial WHERE state IN (2, 3)") == static_cast<std::int64_t>(now.size()));
  if (!killed)
    CHECK(sweep.count("trial WHERE state = 1") + sweep.count("attempt WHERE state = 1") == 0);  // I4
}

void check_finishes(const DisturbedSweep& sweep, std::int64_t num_failed) {
  CHECK(sweep.count("trial WHERE state = 4") == num_failed);
  if (num_failed > 0)
    CHECK(sweep.command({"retry", "--failed", "--db", sweep.database().string()}).code == 0);
  const auto ended = sweep.run();
  INFO(ended.err);
  CHECK(ended.code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == undisturbed_table());
}

}  // namespace test
