#include "orchestrator/watch.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <set>

#include <fmt/format.h>

#include "orchestrator/exit_code.h"
#include "orchestrator/standing.h"
#include "orchestrator/watch_screen.h"

namespace orchestrator {
namespace {

constexpr timespec kEvery{1, 0};
constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};

volatile std::sig_atomic_t caught = 0;

/// A signal ends the pause and is dealt with there, so that the cursor comes back.
void catch_signals() {
  struct sigaction action {};
  action.sa_handler = [](int number) { caught = number; };
  for (const int number : kSignals) ::sigaction(number, &action, nullptr);
}

int columns_of_environment() {
  const char* text = std::getenv("COLUMNS");
  const int columns = text ? std::atoi(text) : 0;
  return columns > 0 ? columns : 80;
}

Screen screen_of_terminal() {
  Screen screen{.width = columns_of_environment(), .height = 24, .colour = false};
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    screen.width = std::max(size.ws_col - 1, 1);  // a full line would wrap
    screen.height = std::max<int>(size.ws_row, 4);
  }
  const char* no_colour = std::getenv("NO_COLOR");
  screen.colour = ::isatty(STDOUT_FILENO) == 1 && (!no_colour || !*no_colour);
  return screen;
}

bool print(const std::string& text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
}

std::string joined(const std::vector<std::string>& lines, const std::string& end) {
  std::string text;
  for (const auto& line : lines) text += line + end;
  return text;
}

/// The part of the terminal that is drawn over; the cursor is hidden meanwhile.
class Terminal {
 public:
  Terminal() { print("\033[?25l"); }
  ~Terminal() { print("\033[?25h"); }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void draw(const Standing& standing) {
    const auto screen = screen_of_terminal();
    auto lines = draw_watch(standing, screen);
    // What is higher than the terminal could not be drawn over.
    if (static_cast<int>(lines.size()) >= screen.height) lines.resize(static_cast<std::size_t>(screen.height - 1));
    std::string text;
    if (screen.width != width_)
      text = width_ ? "\033[2J\033[H" : "";
    else if (num_lines_ > 0)
      text = fmt::format("\033[{}A", num_lines_);
    print(text + "\r" + joined(lines, "\033[K\n") + "\033[J");
    width_ = screen.width;
    num_lines_ = lines.size();
  }

 private:
  int width_ = 0;
  std::size_t num_lines_ = 0;
};

/// What is new, a line each.
class Diary {
 public:
  bool note(const Standing& standing) {
    std::string text;
    for (auto it = standing.failures.rbegin(); it != standing.failures.rend(); ++it)
      if (told_.insert({it->trial, it->time}).second)
        text += fmt::format("trial {} \"{}\" failed: {}; log: {}\n", it->trial, it->name, it->message, it->log);
    const auto counts = std::array{standing.num_ended(), standing.running, standing.num_trials()};
    if (counts != counts_ || text.size() > 0) text += summary_line(standing) + "\n";
    counts_ = counts;
    return print(text);
  }

 private:
  std::set<std::pair<std::int64_t, std::string>> told_;
  std::array<std::int64_t, 3> counts_ = {-1, -1, -1};
};

}  // namespace

int watch(const std::filesystem::path& database, bool once) {
  auto standing = read_standing(database);
  if (once || (!standing.owner && ::isatty(STDOUT_FILENO) == 1)) {
    print(joined(draw_watch(standing, screen_of_terminal()), "\n"));
    return kDone;
  }
  catch_signals();
  std::optional<Terminal> terminal;
  Diary diary;
  if (::isatty(STDOUT_FILENO) == 1) terminal.emplace();
  for (bool listening = true; listening; standing = read_standing(database)) {
    if (terminal)
      terminal->draw(standing);
    else
      listening = diary.note(standing);
    if (!standing.owner || caught) break;
    ::nanosleep(&kEvery, nullptr);
    if (caught) break;
  }
  return caught ? kSignal + static_cast<int>(caught) : static_cast<int>(kDone);
}

}  // namespace orchestrator
