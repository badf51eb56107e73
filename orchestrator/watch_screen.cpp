#include "orchestrator/watch_screen.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "orchestrator/chart_heat_map.h"
#include "orchestrator/progress.h"

namespace orchestrator {
namespace {

using sweeps::TrialState;

constexpr int kBarWidth = 10;
constexpr int kSideBySide = 120;  // columns from which the map stands beside the lists
constexpr int kMaxColumns = 16, kMaxRows = 10;  // of the map; more values are gathered into so many
constexpr int kWdWidth = 8;

constexpr const char* kBold = "1";
constexpr const char* kFaint = "2";
constexpr const char* kRed = "38;2;224;88;72";

bool begins_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }

/// One line of the screen, cut where the screen ends.
class Line {
 public:
  Line(int width, bool colour) : left_(width), colour_(colour) {}

  /// `style`: SGR parameters, as in "1" for bold.
  Line& add(std::string_view text, std::string_view style = "") {
    std::string part;
    for (const char c : text) {
      if (begins_character(c)) {
        if (left_ == 0) break;
        --left_;
      }
      part += c >= 0 && c < ' ' ? ' ' : c;
    }
    if (part.empty()) return *this;
    text_ += colour_ && !style.empty() ? fmt::format("\033[{}m{}\033[0m", style, part) : part;
    return *this;
  }
  Line& pad_to(int column, int width) {
    const int used = width - left_;
    return used < column ? add(std::string(static_cast<std::size_t>(column - used), ' ')) : *this;
  }
  const std::string& text() const { return text_; }

 private:
  int left_;
  bool colour_;
  std::string text_;
};

// --- the map ---

struct MapCell {
  TrialState state = TrialState::waiting;
  double loss = 0;
  int num = 0;  // complete
};

/// Values of an axis, or the lower edges of `most` equal steps of its logarithm.
struct Axis {
  std::vector<double> values;  // rising
  bool gathered = false;
  std::size_t place(double value) const {
    if (!gathered) return static_cast<std::size_t>(std::lower_bound(values.begin(), values.end(), value) - values.begin());
    const auto next = std::upper_bound(values.begin(), values.end(), value * (1 + 1e-9));
    return static_cast<std::size_t>(std::max<std::ptrdiff_t>(next - values.begin() - 1, 0));
  }
};

Axis make_axis(const std::set<double>& values, std::size_t most) {
  if (values.size() <= most) return {{values.begin(), values.end()}, false};
  Axis axis{{}, true};
  const double low = std::log2(*values.begin()), step = (std::log2(*values.rbegin()) - low) / static_cast<double>(most);
  for (std::size_t i = 0; i < most; ++i) axis.values.push_back(std::exp2(low + step * static_cast<double>(i)));
  return axis;
}

class Map {
 public:
  explicit Map(const std::vector<Standing::Cell>& sweep) {
    std::set<double> lrs, wds;
    for (const auto& cell : sweep) lrs.insert(cell.lr), wds.insert(cell.wd);
    x_ = make_axis(lrs, kMaxColumns);
    y_ = make_axis(wds, kMaxRows);
    for (const auto& trial : sweep) add(cells_[{x_.place(trial.lr), y_.place(trial.wd)}], trial);
    std::vector<double> losses;
    for (const auto& [place, cell] : cells_)
      if (cell.state == TrialState::complete) losses.push_back(cell.loss);
    std::sort(losses.begin(), losses.end());
    if (!losses.empty()) {
      lowest_ = losses.front();
      clip_ = std::max(losses[losses.size() * 3 / 4] - lowest_, 1e-3);
    }
  }

  std::vector<std::string> draw(int width, bool colour) const {
    if (x_.values.empty()) return {};
    const int columns = static_cast<int>(x_.values.size());
    const int wide = std::clamp((width - kWdWidth) / std::max(columns, 1), colour ? 1 : 2, 7);
    std::vector<std::string> lines;
    lines.push_back(Line(width, colour).add("LR x WD of the proxy", kBold).add(colour ? "  dark: low loss, red: diverged" : "").text());
    // A character holds two cells, one above the other; few rows are drawn taller.
    const int rows = static_cast<int>(y_.values.size()), halves = colour ? std::clamp(12 / rows, 1, 3) : 1;
    const int num_lines = colour ? (rows * halves + 1) / 2 : rows;
    for (int i = 0; i < num_lines; ++i) {
      Line line(width, colour);
      const int upper = row_at(colour ? 2 * i : i, halves, rows), lower = row_at(2 * i + 1, halves, rows);
      const bool labelled = i == 0 || row_at(colour ? 2 * i - 2 : i - 1, halves, rows) != upper;
      line.add(fmt::format("{:>{}} ", labelled ? fmt::format("{:.2g}", y_.values[static_cast<std::size_t>(upper)]) : "",
                           kWdWidth - 1),
               kFaint);
      for (int j = 0; j < columns; ++j)
        colour ? add_halves(line, j, upper, lower, wide) : add_letter(line, j, upper, wide);
      lines.push_back(line.text());
    }
    lines.push_back(scale(width, wide, colour));
    if (!colour)
      lines.push_back(Line(width, colour).add("0 lowest loss .. 9, x diverged, ! failed, - stopped, r runs, . waits").text());
    return lines;
  }

 private:
  static void add(MapCell& cell, const Standing::Cell& trial) {
    if (trial.loss) {  // replicates: their mean
      cell.loss = (cell.loss * cell.num + *trial.loss) / (cell.num + 1);
      ++cell.num;
      cell.state = TrialState::complete;
    } else if (cell.num == 0) {
      cell.state = trial.state;
    }
  }
  /// The row from below that a half line from above belongs to; -1 below the map.
  static int row_at(int half, int halves, int rows) {
    const int from_above = half / halves;
    return from_above < rows ? rows - 1 - from_above : -1;
  }
  const MapCell* find(int column, int row) const {
    const auto it = cells_.find({static_cast<std::size_t>(column), static_cast<std::size_t>(row)});
    return row < 0 || it == cells_.end() ? nullptr : &it->second;
  }
  double share(const MapCell& cell) const { return (cell.loss - lowest_) / clip_; }

  /// "r;g;b", or nothing for the terminal's own background.
  std::string shade(const MapCell* cell) const {
    if (!cell) return "";
    switch (cell->state) {
      case TrialState::complete: {
        const auto hex = cell_colour(share(*cell)).fill;
        return fmt::format("{};{};{}", std::stoi(hex.substr(1, 2), nullptr, 16), std::stoi(hex.substr(3, 2), nullptr, 16),
                           std::stoi(hex.substr(5, 2), nullptr, 16));
      }
      case TrialState::diverged: return "170;60;50";
      case TrialState::failed: return "235;110;90";
      case TrialState::pruned: return "140;140;140";
      case TrialState::running: return "90;90;120";
      case TrialState::waiting:
      case TrialState::dropped: return "50;50;55";
    }
    return "";
  }
  void add_halves(Line& line, int column, int upper, int lower, int wide) const {
    const auto above = shade(find(column, upper)), below = shade(find(column, lower));
    std::string text;
    const char* block = above.empty() && below.empty() ? " " : above.empty() ? "▄" : "▀";
    for (int i = 0; i < wide; ++i) text += block;
    std::string style = above.empty() ? "" : "38;2;" + above;
    if (above.empty() && !below.empty()) style = "38;2;" + below;
    if (!above.empty() && !below.empty()) style += ";48;2;" + below;
    line.add(text, style);
  }
  void add_letter(Line& line, int column, int row, int wide) const {
    const auto* cell = find(column, row);
    std::string letter = " ";
    if (cell) {
      switch (cell->state) {
        case TrialState::complete:
          letter = std::to_string(std::clamp(static_cast<int>(std::lround(share(*cell) * 9)), 0, 9));
          break;
        case TrialState::diverged: letter = "x"; break;
        case TrialState::failed: letter = "!"; break;
        case TrialState::pruned: letter = "-"; break;
        case TrialState::running: letter = "r"; break;
        case TrialState::waiting:
        case TrialState::dropped: letter = "."; break;
      }
    }
    line.add(fmt::format("{:<{}}", letter, wide));
  }
  /// LR under the columns, as many as have room.
  std::string scale(int width, int wide, bool colour) const {
    Line line(width, colour);
    line.add(fmt::format("{:>{}} ", "WD / LR", kWdWidth - 1), kFaint);
    const int every = (7 + wide) / wide;
    for (int j = 0; j < static_cast<int>(x_.values.size()); j += every)
      line.add(fmt::format("{:<{}}", fmt::format("{:.1e}", x_.values[static_cast<std::size_t>(j)]), wide * every), kFaint);
    return line.text();
  }

  Axis x_, y_;
  std::map<std::pair<std::size_t, std::size_t>, MapCell> cells_;
  double lowest_ = 0, clip_ = 1;
};

// --- the lists ---

std::string bar(double share) {
  const int full = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * kBarWidth));
  std::string text;
  for (int i = 0; i < kBarWidth; ++i) text += i < full ? "█" : "░";
  return text;
}

std::vector<std::string> running_lines(const Standing& standing, int width, bool colour, int most) {
  std::vector<std::string> lines;
  if (standing.trials.empty()) return lines;
  lines.push_back(Line(width, colour).add("running", kBold).text());
  const int name_width = std::clamp(width - 50, 12, 60);
  for (const auto& trial : standing.trials) {
    if (static_cast<int>(lines.size()) > most) {
      lines.push_back(
          Line(width, colour).add(fmt::format("  and {} more", standing.trials.size() - lines.size() + 1), kFaint).text());
      break;
    }
    Line line(width, colour);
    Line name(name_width, false);
    name.add(trial.name).pad_to(name_width, name_width);
    line.add(fmt::format("{:>5} ", trial.trial), kFaint).add(name.text()).add(" ");
    line.add(bar(trial.steps > 0 ? static_cast<double>(trial.step) / static_cast<double>(trial.steps) : 0));
    line.add(fmt::format(" {:>11} ", fmt::format("{}/{}", trial.step, trial.steps)));
    line.add(fmt::format("{:<7} ", trial.device));
    if (trial.attempt > 1) line.add(fmt::format("#{} ", trial.attempt), kRed);
    line.add(trial.eta_seconds ? duration_text(*trial.eta_seconds) : "");
    lines.push_back(line.text());
  }
  return lines;
}

std::vector<std::string> best_lines(const Standing& standing, int width, bool colour, int most) {
  std::vector<std::string> lines;
  if (standing.best.empty()) return lines;
  lines.push_back(Line(width, colour).add("best so far", kBold).text());
  for (const auto& best : standing.best) {
    if (static_cast<int>(lines.size()) > most) break;
    lines.push_back(Line(width, colour)
                        .add(fmt::format("{:>5} ", best.trial), kFaint)
                        .add(fmt::format("{:<14} ", best.model))
                        .add(fmt::format("{:.4f}", best.loss), kBold)
                        .add(fmt::format("  LR {:.3g}  WD {:.3g}  init std {:.3g}", best.lr, best.wd, best.init_std))
                        .text());
  }
  return lines;
}

std::vector<std::string> failure_lines(const Standing& standing, int width, bool colour) {
  std::vector<std::string> lines;
  if (standing.failures.empty()) return lines;
  lines.push_back(Line(width, colour).add(fmt::format("failed: {}", standing.failed), kRed).text());
  for (const auto& failure : standing.failures) {
    const auto log = failure.log.empty() ? "" : "  " + failure.log;
    // The log's path is what the reader needs whole; the message gives way.
    const int room = std::max(12, width - 6 - visible_width(log));
    Line message(room, false);
    message.add(width >= kSideBySide ? fmt::format("\"{}\" {}", failure.name, failure.message) : failure.message);
    lines.push_back(
        Line(width, colour).add(fmt::format("{:>5} ", failure.trial), kFaint).add(message.text()).add(log, kFaint).text());
  }
  return lines;
}

void append(std::vector<std::string>& lines, const std::vector<std::string>& block) {
  if (block.empty()) return;
  lines.push_back("");
  lines.insert(lines.end(), block.begin(), block.end());
}

/// `left` padded to `column`, then `right`.
std::vector<std::string> beside(std::vector<std::string> left, const std::vector<std::string>& right, int column) {
  if (left.size() < right.size()) left.resize(right.size());
  for (std::size_t i = 0; i < right.size(); ++i)
    left[i] += std::string(static_cast<std::size_t>(std::max(0, column - visible_width(left[i]))), ' ') + right[i];
  return left;
}

}  // namespace

int visible_width(std::string_view line) {
  int width = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\033') {
      i = std::min(line.find('m', i), line.size() - 1);
      continue;
    }
    width += begins_character(line[i]);
  }
  return width;
}

std::vector<std::string> draw_watch(const Standing& standing, const Screen& screen) {
  const int width = screen.width;
  const bool colour = screen.colour, wide = width >= kSideBySide;
  std::vector<std::string> lines;
  lines.push_back(Line(width, colour)
                      .add(standing.study, kBold)
                      .add(fmt::format("  {}  {}", standing.database.string(),
                                       standing.owner ? fmt::format("a run is on ({})", *standing.owner) : "no run is on"),
                           kFaint)
                      .text());
  lines.push_back(Line(width, colour).add(summary_line(standing)).text());

  const int lists_width = wide ? width * 3 / 5 : width;
  const auto map = Map(standing.sweep).draw(wide ? width - lists_width - 2 : width, colour);
  const auto failures = failure_lines(standing, width, colour);
  const auto best = best_lines(standing, lists_width, colour, std::max(3, screen.height / 4));
  const auto rows = [](const auto& block) { return block.empty() ? 0 : static_cast<int>(block.size()) + 1; };
  const int left = screen.height - 4 - (wide ? 0 : rows(map)) - rows(failures) - rows(best);
  const auto running = running_lines(standing, lists_width, colour, std::max(2, left - 2));
  std::vector<std::string> lists;
  append(lists, running);
  append(lists, best);
  if (wide) {
    std::vector<std::string> padded;
    append(padded, map);
    lists = beside(std::move(lists), padded, lists_width + 2);
    lines.insert(lines.end(), lists.begin(), lists.end());
  } else {
    lines.insert(lines.end(), lists.begin(), lists.end());
    append(lines, map);
  }
  append(lines, failures);
  for (auto& line : lines) line.erase(line.find_last_not_of(' ') + 1);
  return lines;
}

}  // namespace orchestrator
