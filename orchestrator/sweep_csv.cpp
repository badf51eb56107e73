#include "orchestrator/sweep_csv.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "orchestrator/exit_code.h"

namespace orchestrator {
namespace {

using sweeps::TrialState;

constexpr std::string_view kBom = "\xEF\xBB\xBF";
constexpr std::size_t kColumnsShown = 20;

/// Where a message points to.
struct Place {
  std::string file;
  [[noreturn]] void refuse(int line, const std::string& why) const {
    throw ExitError(kUsage, fmt::format("{}:{}: {}", file, line, why));
  }
  [[noreturn]] void refuse(const std::string& why) const {
    throw ExitError(kUsage, fmt::format("{}: {}", file, why));
  }
};

struct Row {
  int line = 0;  // its first
  std::vector<std::string> cells;
};

std::string trimmed(std::string_view text) {
  const auto from = text.find_first_not_of(" \t\r");
  if (from == std::string_view::npos) return "";
  return std::string(text.substr(from, text.find_last_not_of(" \t\r") - from + 1));
}

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
  return text;
}

/// Rows of cells; blank lines are left out.
class Reader {
 public:
  Reader(std::string_view text, const Place& place) : text_(text), place_(place) {}

  std::optional<Row> next() {
    while (at_ < text_.size()) {
      Row row{line_, {}};
      while (read_cell(row)) {
      }
      if (row.cells.size() > 1 || !row.cells.front().empty()) return row;
    }
    return std::nullopt;
  }

 private:
  /// One cell and what ends it; true after a comma.
  bool read_cell(Row& row) {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
    if (at_ < text_.size() && text_[at_] == '"') {
      row.cells.push_back(quoted());
      const auto end = std::min(text_.find_first_of(",\n", at_), text_.size());
      if (!trimmed(text_.substr(at_, end - at_)).empty())
        place_.refuse(line_,
                      fmt::format("\"{}\" after a closing quote; a quote inside a cell is written twice",
                                  trimmed(text_.substr(at_, end - at_))));
      at_ = end;
    } else {
      const auto end = std::min(text_.find_first_of(",\n", at_), text_.size());
      row.cells.push_back(trimmed(text_.substr(at_, end - at_)));
      at_ = end;
    }
    const bool more = at_ < text_.size() && text_[at_] == ',';
    if (at_ < text_.size() && text_[at_++] == '\n') ++line_;
    return more;
  }

  std::string quoted() {
    const int opened = line_;
    std::string cell;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '\n') ++line_;
      if (text_[at_] != '"') {
        cell += text_[at_];
        continue;
      }
      if (at_ + 1 >= text_.size() || text_[at_ + 1] != '"') {
        ++at_;
        return cell;
      }
      cell += text_[++at_];
    }
    place_.refuse(opened, "a quote is opened here and never closed");
  }

  std::string_view text_;
  const Place& place_;
  std::size_t at_ = 0;
  int line_ = 1;
};

/// Which cell holds what.
struct Columns {
  std::optional<std::size_t> lr, wd, loss, seed, status, role, target, init_std;
};

std::string found(const std::vector<std::string>& names) {
  const auto shown = std::min(names.size(), kColumnsShown);
  auto text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

Columns read_header(const Row& row, const Place& place) {
  Columns columns;
  const std::array<std::pair<std::string_view, std::optional<std::size_t>*>, 9> known = {{
      {"lr", &columns.lr},
      {"wd", &columns.wd},
      {"loss", &columns.loss},
      {"seed", &columns.seed},
      {"status", &columns.status},
      {"state", &columns.status},
      {"role", &columns.role},
      {"target", &columns.target},
      {"init_std", &columns.init_std},
  }};
  for (std::size_t i = 0; i < row.cells.size(); ++i)
    for (const auto& [name, column] : known) {
      if (lower(row.cells[i]) != name) continue;
      if (*column)
        place.refuse(row.line, fmt::format("columns {} \"{}\" and {} \"{}\" both say the same; leave one out",
                                           **column + 1, row.cells[**column], i + 1, row.cells[i]));
      *column = i;
    }
  std::vector<std::string_view> missing;
  for (const auto& [name, column] : known)
    if (!*column && (name == "lr" || name == "wd" || name == "loss")) missing.push_back(name);
  if (missing.empty()) return columns;
  std::string help = "the first line names the columns: rename yours to lr, wd, loss";
  if (row.cells.size() == 1 && row.cells.front().find_first_of(";\t") != std::string::npos)
    help = "cells are separated by commas, and numbers have a decimal point";
  else if (missing.size() == 1 && missing.front() == "wd")
    help += "; for a sweep of LR alone, add wd with the one value that was used";
  place.refuse(row.line,
               fmt::format("no column {}; found: {}; {}", fmt::join(missing, ", "), found(row.cells), help));
}

/// A number written with a decimal point; none where the cell holds something else.
std::optional<double> number(std::string_view cell) {
  if (cell.starts_with('+') && cell.size() > 1 && cell[1] != '-') cell.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc{} || end != cell.data() + cell.size()) return std::nullopt;
  return value;
}

class SweepReader {
 public:
  SweepReader(const Row& header, const Place& place)
      : place_(place), columns_(read_header(header, place)), num_columns_(header.cells.size()) {}

  void add(const Row& row) {
    if (row.cells.size() != num_columns_)
      place_.refuse(
          row.line,
          fmt::format(
              "{} cells, where the header has {}{}", row.cells.size(), num_columns_,
              row.cells.size() > num_columns_ ? "; text or a number with a comma in it goes in quotes" : ""));
    sweeps::TrialResult trial;
    trial.spec.base.lr = above_zero(row, "lr", *columns_.lr);
    trial.spec.base.wd = above_zero(row, "wd", *columns_.wd);
    const auto loss = read_loss(row);
    trial.state = read_state(row, loss.has_value());
    if (trial.state == TrialState::complete && !loss) trial.state = TrialState::diverged;
    if (trial.state == TrialState::complete) trial.loss = loss;
    trial.spec.seed = seed(row);
    check_model(row);
    check_repeated(row, trial);
    sweep.trials.push_back(std::move(trial));
  }

  CsvSweep sweep;

 private:
  /// Whose sweep a row of the table of results belongs to, and what selects it.
  struct Model {
    std::string kind, name, where;
  };

  double above_zero(const Row& row, const char* name, std::size_t column) const {
    const auto& cell = row.cells[column];
    const auto value = number(cell);
    if (!value || !std::isfinite(*value))
      place_.refuse(row.line, fmt::format("{} is \"{}\"; write a number such as 1e-3", name, cell));
    if (*value == 0 && columns_.wd == column)
      place_.refuse(
          row.line,
          "wd is 0, which has no logarithm, and WD is fitted in octaves; leave this row out, or, where "
          "every run has wd 0, write one value above 0 in all rows: LR alone is fitted then");
    if (!(*value > 0))
      place_.refuse(
          row.line,
          fmt::format("{} is {}; it must be above 0 (the value itself, not its logarithm)", name, cell));
    return *value;
  }

  std::optional<double> read_loss(const Row& row) const {
    const auto& cell = row.cells[*columns_.loss];
    static const std::set<std::string> kNone = {"", "na", "n/a", "none", "null"};
    if (kNone.contains(lower(cell))) return std::nullopt;
    const auto value = number(cell);
    if (!value)
      place_.refuse(row.line,
                    fmt::format("loss is \"{}\"; write a number, or nan for a run that diverged", cell));
    return std::isfinite(*value) ? value : std::nullopt;
  }

  TrialState read_state(const Row& row, bool has_loss) const {
    const std::string word = columns_.status ? lower(row.cells[*columns_.status]) : "";
    if (word.empty()) return has_loss ? TrialState::complete : TrialState::diverged;
    if (word == "done" || word == "finished" || word == "ok") return TrialState::complete;
    if (word == "crashed") return TrialState::failed;
    std::vector<std::string_view> known;
    for (const auto state :
         {TrialState::complete, TrialState::diverged, TrialState::failed, TrialState::pruned,
          TrialState::waiting, TrialState::running, TrialState::dropped}) {
      if (word == sweeps::name(state)) return state;
      known.push_back(sweeps::name(state));
    }
    place_.refuse(row.line, fmt::format("status \"{}\" is unknown; known: {}; or leave it empty",
                                        row.cells[*columns_.status], fmt::join(known, ", ")));
  }

  std::uint64_t seed(const Row& row) {
    if (!columns_.seed) return 0;
    const auto at = seeds_.emplace(row.cells[*columns_.seed], seeds_.size()).first;
    sweep.num_seeds = static_cast<int>(seeds_.size());
    return at->second;
  }

  /// The whole table of results holds several models, whose losses have nothing to do with each other. The
  /// scan's trials at the initial std that was chosen are part of the sweep.
  void check_model(const Row& row) {
    if (!columns_.role || !columns_.target) return;
    const auto& role = row.cells[*columns_.role];
    const auto& target = row.cells[*columns_.target];
    const std::string std = columns_.init_std ? row.cells[*columns_.init_std] : "";
    Model model{role, target, fmt::format("target = '{}' AND role = '{}'", target, role)};
    if (role == "drift" || role == "target")
      model = {"target", target, fmt::format("target = '{}' AND role != 'check'", target)};
    if (role == "scan" || role == "proxy")
      model = {"proxy at init_std", std, fmt::format("target IS NULL AND init_std = {}", std)};
    if (!model_) model_ = model;
    if (model.kind == model_->kind && model.name == model_->name) return;
    place_.refuse(row.line,
                  fmt::format("belongs to another sweep ({} {}) than the rows above ({} {}); take one, as "
                              "with tuneonce query \"SELECT * FROM results WHERE {}\" --format csv",
                              model.kind, model.name, model_->kind, model_->name, model_->where));
  }

  /// One run twice would count as two that agree.
  void check_repeated(const Row& row, const sweeps::TrialResult& trial) {
    if (!columns_.seed || (trial.state != TrialState::complete && trial.state != TrialState::diverged))
      return;
    const auto [at, is_new] =
        lines_.emplace(std::tuple{trial.spec.base.lr, trial.spec.base.wd, trial.spec.seed}, row.line);
    if (!is_new)
      place_.refuse(row.line,
                    fmt::format("the same lr, wd and seed as line {}; leave one out, or give a run in "
                                "another seed that seed",
                                at->second));
  }

  const Place& place_;
  Columns columns_;
  std::size_t num_columns_;
  std::map<std::string, std::uint64_t> seeds_;
  std::map<std::tuple<double, double, std::uint64_t>, int> lines_;
  std::optional<Model> model_;
};

}  // namespace

CsvSweep parse_sweep_csv(std::string_view text, const std::filesystem::path& file) {
  const Place place{file.string()};
  if (text.starts_with(kBom)) text.remove_prefix(kBom.size());
  if (text.find('\0') != std::string_view::npos)
    place.refuse("is not plain UTF-8 text; save it as CSV, or give a database without an option for CSV");
  Reader rows(text, place);
  const auto header = rows.next();
  if (!header) place.refuse("is empty; the first line names the columns, as in lr,wd,loss");
  SweepReader reader(*header, place);
  while (const auto row = rows.next()) reader.add(*row);
  if (reader.sweep.trials.empty()) place.refuse("has a header and no runs under it");
  reader.sweep.name = file.stem().string();
  return std::move(reader.sweep);
}

CsvSweep read_sweep_csv(const std::filesystem::path& file) {
  const Place place{file.string()};
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (!std::filesystem::exists(status)) place.refuse("there is no such file");
  if (std::filesystem::is_directory(status)) place.refuse("is a folder; name a CSV file");
  std::ifstream stream(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  if (!stream) place.refuse("cannot be read");
  return parse_sweep_csv(text, file);
}

}  // namespace orchestrator
