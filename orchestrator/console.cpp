#include "orchestrator/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "db/sqlite.h"
#include "orchestrator/exit_code.h"

namespace orchestrator {
namespace {

constexpr auto kProgressEvery = std::chrono::seconds(30);

/// A closed pipe or a hung-up terminal must not end a run, so failures are let go.
void write(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

std::size_t terminal_width() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79u;
}

}  // namespace

Console::Console(const ConsoleOptions& options)
    : options_(options),
      terminal_(::isatty(STDERR_FILENO) == 1),
      last_progress_(std::chrono::steady_clock::now()) {
  if (options.log_file.empty()) return;
  log_.open(options.log_file, std::ios::app);
  if (!log_)
    throw ExitError(kEnvironment,
                    fmt::format("{}: cannot be written: {}", options.log_file, std::strerror(errno)));
}

Console::~Console() { clear_progress(); }

void Console::error(const std::string& text) { print("tuneonce: " + text); }
void Console::message(const std::string& text) {
  if (options_.quiet)
    log(text);
  else
    print(text);
}
void Console::detail(const std::string& text) {
  if (options_.verbose)
    print(text);
  else
    log(text);
}

void Console::progress(const std::string& text) {
  if (options_.quiet) return;
  if (terminal_) {
    write("\r\033[K" + text.substr(0, terminal_width()));
    progress_shown_ = true;
  } else if (std::chrono::steady_clock::now() - last_progress_ >= kProgressEvery) {
    last_progress_ = std::chrono::steady_clock::now();
    print(text);
  }
}

void Console::print(const std::string& text) {
  clear_progress();
  write(text + "\n");
  log(text);
}

void Console::log(const std::string& text) {
  if (log_.is_open()) log_ << db::now_utc() << ' ' << text << std::endl;
}

void Console::clear_progress() {
  if (progress_shown_) write("\r\033[K");
  progress_shown_ = false;
}

}  // namespace orchestrator
