#include "orchestrator/logs.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <thread>

#include <fmt/format.h>

#include "db/query.h"
#include "db/reader.h"
#include "orchestrator/exit_code.h"
#include "orchestrator/owner_lock.h"
#include "orchestrator/spec_codec.h"
#include "orchestrator/trial_commands.h"

namespace orchestrator {
namespace {

namespace fs = std::filesystem;

constexpr auto kLookEvery = std::chrono::milliseconds(200);

bool print(std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
}

std::string read_all(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw ExitError(kEnvironment, fmt::format("{}: cannot be read", file.string()));
  return {std::istreambuf_iterator<char>(stream), {}};
}

fs::path rotated(const fs::path& log) { return log.string() + ".1"; }

/// What has been shown of a log that grows, and is moved to FILE.1 when it has become too long.
class Growing {
 public:
  explicit Growing(fs::path file) : file_(std::move(file)) {}

  /// All of it, what was rotated away first.
  std::string whole() {
    std::string text;
    if (fs::exists(rotated(file_))) text = read_all(rotated(file_));
    // A log begins with the first word; that of a trial whose worker has printed nothing is not there.
    const auto now = fs::exists(file_) || !fs::exists(file_.parent_path()) ? read_all(file_) : "";
    remember(now.size());
    return text + now;
  }
  /// What has come since.
  std::string news() {
    std::string text;
    struct stat status {};
    if (::stat(file_.c_str(), &status) != 0) return text;
    if (status.st_ino != inode_ && inode_ != 0) {
      struct stat moved {};
      if (::stat(rotated(file_).c_str(), &moved) == 0 && moved.st_ino == inode_) text = from(rotated(file_), shown_);
      shown_ = 0;
    }
    const auto more = from(file_, shown_);
    remember(shown_ + more.size());
    return text + more;
  }

 private:
  static std::string from(const fs::path& file, std::size_t place) {
    std::ifstream stream(file, std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(place));
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  void remember(std::size_t shown) {
    struct stat status {};
    if (::stat(file_.c_str(), &status) == 0) inode_ = status.st_ino;
    shown_ = shown;
  }

  fs::path file_;
  std::size_t shown_ = 0;
  ino_t inode_ = 0;
};

/// Will this trial print more? While it runs, or waits in a run that is on.
bool may_go_on(const fs::path& database, std::int64_t trial) {
  const auto state = db::run_query(database, "SELECT state FROM trial WHERE id = ?1", {trial});
  const auto* number = state.rows.empty() ? nullptr : std::get_if<std::int64_t>(&state.rows[0][0]);
  return number && (*number == 0 || *number == 1) && OwnerLock::owner(database);
}

std::optional<fs::path> log_of(const fs::path& database, std::int64_t trial) {
  const auto found = db::run_query(
      database, "SELECT log FROM attempt WHERE trial_id = ?1 ORDER BY number DESC LIMIT 1", {trial});
  if (found.rows.empty()) return std::nullopt;
  return fs::absolute(database).parent_path() / std::get<std::string>(found.rows[0][0]);
}

}  // namespace

std::string_view last_lines(std::string_view text, std::int64_t lines) {
  if (lines <= 0) return text.substr(text.size());
  std::size_t start = text.size();
  if (text.ends_with('\n')) --start;
  for (; start > 0; --start)
    if (text[start - 1] == '\n' && --lines == 0) break;
  return text.substr(start);
}

std::string_view attempt_part(std::string_view text, std::int64_t attempt) {
  // As the scheduler begins an attempt: TIME attempt N of trial ...
  constexpr std::size_t kTimeSize = 23;
  std::optional<std::size_t> start;
  for (std::size_t line = 0; line < text.size();) {
    const auto end = std::min(text.find('\n', line), text.size() - 1);
    const auto words = text.substr(line, end - line);
    if (words.size() > kTimeSize && words.substr(kTimeSize).starts_with(" attempt ") &&
        words.find(" of trial ") != words.npos) {
      if (start) return text.substr(*start, line - *start);
      if (words.substr(kTimeSize).starts_with(fmt::format(" attempt {} of trial ", attempt))) start = line;
    }
    line = end + 1;
  }
  return start ? text.substr(*start) : text.substr(text.size());
}

int show_logs(const fs::path& database, const LogsOptions& options) {
  const auto trial = named_trials(db::Reader(database, spec_codec()), {options.trial}).front();
  auto file = log_of(database, trial.id);
  while (!file && options.follow && may_go_on(database, trial.id)) {
    std::this_thread::sleep_for(kLookEvery);
    file = log_of(database, trial.id);
  }
  if (!file) throw ExitError(kUsage, fmt::format("{}: {} has had no attempt yet", database.string(), quoted(trial)));
  Growing log(*file);
  const auto whole = log.whole();
  std::string_view text = whole;
  if (whole.empty() && !options.follow) {
    fmt::print(stderr, "{}: its worker has printed nothing\n", quoted(trial));
    return kDone;
  }
  if (options.attempt) {
    text = attempt_part(whole, *options.attempt);
    if (text.empty())
      throw ExitError(kUsage, fmt::format("{}: no attempt {} of {} in its log", file->string(), *options.attempt,
                                          quoted(trial)));
  }
  if (options.lines) text = last_lines(text, *options.lines);
  bool listening = print(text);
  while (options.follow && listening) {
    const bool more = may_go_on(database, trial.id);
    listening = print(log.news());
    if (!more) break;
    std::this_thread::sleep_for(kLookEvery);
  }
  return kDone;
}

}  // namespace orchestrator
