// models/README.md's tables against the code: every cell's formula, evaluated at random shapes.
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <regex>
#include <set>

#include "models/parameterization.h"
#include "tests/support/catch.h"

using namespace models;

namespace {

using Letters = std::map<std::string, double>;

/// + - * / ^ ( ) sqrt-free formulas over letters, and w(x).
class Formula {
 public:
  Formula(const std::string& text, const Letters& letters, bool scaled_wd)
      : text_(text), letters_(letters), scaled_wd_(scaled_wd) {}

  double value() {
    const double result = sum();
    if (at_ != text_.size()) throw std::runtime_error("cannot read formula " + text_);
    return result;
  }

 private:
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  double sum() {
    double result = product();
    while (true) {
      if (take('+'))
        result += product();
      else if (take('-'))
        result -= product();
      else
        return result;
    }
  }
  double product() {
    double result = power();
    while (true) {
      if (take('*'))
        result *= power();
      else if (take('/'))
        result /= power();
      else
        return result;
    }
  }
  double power() {
    const double base = atom();
    return take('^') ? std::pow(base, atom()) : base;
  }
  double atom() {
    if (take('-')) return -atom();
    if (take('(')) {
      const double inner = sum();
      if (!take(')')) throw std::runtime_error("no ) in formula " + text_);
      return inner;
    }
    std::size_t end = at_;
    while (end < text_.size() && std::isalnum(static_cast<unsigned char>(text_[end]))) ++end;
    const std::string word = text_.substr(at_, end - at_);
    at_ = end;
    if (word == "w") {
      const double inner = atom();
      return scaled_wd_ ? inner : 1;
    }
    if (const auto letter = letters_.find(word); letter != letters_.end()) return letter->second;
    return std::stod(word);
  }

  std::string text_;
  Letters letters_;
  bool scaled_wd_;
  std::size_t at_ = 0;
};

struct Column {
  RuleOptions options;
  std::vector<std::pair<std::string, std::string>> cells;  // row, cell
};

std::vector<std::string> split_row(const std::string& line) {
  std::vector<std::string> cells;
  std::size_t begin = 1;
  for (auto end = line.find('|', begin); end != std::string::npos; end = line.find('|', begin)) {
    const auto first = line.find_first_not_of(' ', begin), last = line.find_last_not_of(' ', end - 1);
    cells.push_back(first < end ? line.substr(first, last - first + 1) : "");
    begin = end + 1;
  }
  return cells;
}

Column column_of(const std::string& head) {
  static const std::regex rule("`([a-z-]+)`"), regime("regime ([123])");
  std::smatch match;
  REQUIRE(std::regex_search(head, match, rule));
  Column column;
  column.options.rule = parse_parameterization(match[1].str());
  if (std::regex_search(head, match, regime)) column.options.mssp_regime = std::stoi(match[1].str());
  return column;
}

/// One column a rule (a regime) of the tables that begin with "group (`TensorGroup`)".
std::vector<Column> columns_of_readme() {
  std::ifstream file(std::string(TUNEONCE_SOURCE_DIR) + "/models/README.md");
  REQUIRE(file);
  std::vector<Column> columns;
  std::size_t first = 0;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("| group (`TensorGroup`)")) {
      inside = true;
      first = columns.size();
      const auto heads = split_row(line);
      for (std::size_t i = 1; i < heads.size(); ++i) columns.push_back(column_of(heads[i]));
    } else if (!line.starts_with("|")) {
      inside = false;
    } else if (inside && !line.starts_with("|-")) {
      const auto cells = split_row(line);
      REQUIRE(cells.size() == columns.size() - first + 1);
      for (std::size_t i = 1; i < cells.size(); ++i)
        columns[first + i - 1].cells.emplace_back(cells[0], cells[i]);
    }
  }
  return columns;
}

/// What a cell says, by name ("std", "LR", ...); throws for a cell with anything that it cannot read.
std::map<std::string, double> factors_of(std::string cell, const Letters& letters, bool scaled_wd) {
  std::map<std::string, double> factors;
  static const std::regex item("(std|LR|WD|eps|1-beta|x|R) `([^`]+)`"), citation(R"( ?\[\d+\])");
  for (std::sregex_iterator it(cell.begin(), cell.end(), item), end; it != end; ++it) {
    if (!factors.emplace((*it)[1], Formula((*it)[2], letters, scaled_wd).value()).second)
      throw std::runtime_error("twice in one cell: " + cell);
  }
  const std::string rest = std::regex_replace(std::regex_replace(cell, item, "#"), citation, "");
  const bool readable = factors.empty() ? rest == "1" : std::regex_match(rest, std::regex("#(, #)*"));
  if (!readable) throw std::runtime_error("cannot read cell: " + cell);
  return factors;
}

double factor(const std::map<std::string, double>& factors, const char* name) {
  const auto found = factors.find(name);
  return found == factors.end() ? 1 : found->second;
}

/// A random proxy and target that the rule covers, and what the letters are there.
struct Case {
  RunShape proxy, target;
  Letters letters;
};
Case random_case(std::mt19937& random, const RuleOptions& options, bool moe) {
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  const bool mssp = options.rule == Parameterization::mssp;
  const bool fixed_depth = mssp || options.rule == Parameterization::mup_moe;
  const bool shared = options.rule == Parameterization::mup || options.rule == Parameterization::complete_mue;
  Case result;
  auto& from = result.proxy.shape;
  from.width = 32 * pick(1, 6);
  from.depth = pick(1, 8);
  from.ffn_width = from.width / 32 * pick(8, 100);
  result.proxy.steps = pick(100, 10'000);
  result.target = result.proxy;
  auto& to = result.target.shape;
  const auto times = pick(1, 5);
  to.width = mssp ? times * from.width : 32 * pick(1, 40);
  if (!fixed_depth) to.depth = pick(1, 30);
  result.target.steps = pick(100, 10'000);
  const auto scaled = mssp ? times * from.ffn_width : pick(8, 500);
  if (moe) {
    to.num_experts = pick(2, 64);
    to.num_active = pick(1, to.num_experts);
    to.num_shared = shared ? pick(0, 3) : 0;
    to.expert_width = mssp && options.mssp_regime == 2 ? from.ffn_width : scaled;
    to.ffn_width = 0;
  } else {
    to.ffn_width = scaled;
  }
  const auto real = [](std::int64_t x) { return static_cast<double>(x); };
  const double hidden = real(moe ? to.expert_width : to.ffn_width);
  const double active = moe ? real(to.num_active + to.num_shared) * hidden : hidden;
  result.letters = {{"r", real(to.width) / real(from.width)},
                    {"m", real(to.depth) / real(from.depth)},
                    {"q", hidden / real(from.ffn_width)},
                    {"e", active / real(to.width) / (real(from.ffn_width) / real(from.width))},
                    {"M", moe ? real(to.num_experts) : 1},
                    {"a", moe ? real(to.num_active) : 1},
                    {"t", real(result.target.steps) / real(result.proxy.steps)},
                    {"alpha", options.depth_exponent},
                    {"delta", options.duration_exponent}};
  return result;
}

const std::vector<TensorGroup> kAllGroups = {
    TensorGroup::embedding, TensorGroup::attention,   TensorGroup::norm,       TensorGroup::ffn_up,
    TensorGroup::ffn_down,  TensorGroup::router,      TensorGroup::expert_up,  TensorGroup::expert_down,
    TensorGroup::shared_up, TensorGroup::shared_down, TensorGroup::final_norm, TensorGroup::head,
    TensorGroup::modulation};

/// The groups that a row's first cell names; a row that names a head rule is for that rule only.
std::vector<TensorGroup> groups_of(const std::string& row, const RuleOptions& options) {
  static const std::regex head("head = \"([a-z-]+)\"");
  std::smatch match;
  if (std::regex_search(row, match, head) && parse_head_rule(match[1].str()) != options.head) return {};
  std::vector<TensorGroup> groups;
  for (const auto group : kAllGroups)
    if (row.find(std::string("`").append(name(group)).append("`")) != std::string::npos)
      groups.push_back(group);
  return groups;
}

bool is_expert_group(TensorGroup group) {
  return group == TensorGroup::router || group == TensorGroup::expert_up ||
         group == TensorGroup::expert_down || group == TensorGroup::shared_up ||
         group == TensorGroup::shared_down;
}
bool is_shared_group(TensorGroup group) {
  return group == TensorGroup::shared_up || group == TensorGroup::shared_down;
}

void check_undefined(TensorGroup group, Case x, const RuleOptions& options) {
  x.target.shape.num_shared = is_shared_group(group) ? 1 : 0;
  CHECK_THROWS_AS(group_scaling(group, x.target, x.proxy, options), std::invalid_argument);
}

void check_cell(const std::string& cell, const std::string& everywhere, TensorGroup group, const Case& x,
                const RuleOptions& options) {
  const bool scaled = options.wd_width == WdWidth::scaled;
  const auto own = factors_of(cell, x.letters, scaled), all = factors_of(everywhere, x.letters, scaled);
  const auto code = group_scaling(group, x.target, x.proxy, options);
  const auto both = [&](const char* what) { return factor(own, what) * factor(all, what); };
  CHECK_THAT(code.init_std, WithinRel(both("std"), 1e-12));
  CHECK_THAT(code.lr, WithinRel(both("LR"), 1e-12));
  CHECK_THAT(code.wd, WithinRel(both("WD"), 1e-12));
  CHECK_THAT(code.eps, WithinRel(both("eps"), 1e-12));
  CHECK_THAT(code.one_minus_beta, WithinRel(both("1-beta"), 1e-12));
  CHECK_THAT(code.forward, WithinRel(both("x"), 1e-12));
}

std::string cell_of(const Column& column, const std::string& row) {
  for (const auto& [name, cell] : column.cells)
    if (name == row) return cell;
  FAIL("models/README.md has no row " << row);
  return {};
}

}  // namespace

TEST_CASE("each cell of the rule tables in models/README.md is what the code does", "[models][readme]") {
  std::mt19937 random(7);
  const auto columns = columns_of_readme();
  std::set<std::pair<std::string_view, int>> seen;
  for (const auto& column : columns) seen.emplace(name(column.options.rule), column.options.mssp_regime);
  CHECK(seen.size() == all_rules().size() + 2);  // MSSP has three regimes
  for (auto column : columns) {
    auto& options = column.options;
    const auto everywhere = cell_of(column, "times, in every group");
    for (const auto head : {HeadRule::published, HeadRule::mup, HeadRule::complete_dp})
      for (const auto wd : {WdWidth::scaled, WdWidth::literal}) {
        options.head = head;
        options.wd_width = wd;
        std::multiset<TensorGroup> rows;
        for (const auto& [row, cell] : column.cells)
          for (const auto group : groups_of(row, options)) {
            INFO(name(options.rule) << " regime " << options.mssp_regime << ", " << row << ": " << cell);
            rows.insert(group);
            for (int i = 0; i < 5; ++i) {
              options.depth_exponent = std::uniform_real_distribution<double>(0, 1.5)(random);
              options.duration_exponent = std::uniform_real_distribution<double>(0, 1)(random);
              const bool dense = group == TensorGroup::ffn_up || group == TensorGroup::ffn_down;
              if (cell == "undefined")
                check_undefined(group, random_case(random, options, true), options);
              else
                check_cell(cell, everywhere, group,
                           random_case(random, options, !dense && is_expert_group(group)), options);
            }
          }
        CHECK(rows == std::multiset<TensorGroup>(kAllGroups.begin(), kAllGroups.end()));
      }
  }
}

TEST_CASE("the route scale of each rule is what models/README.md says", "[models][readme]") {
  std::mt19937 random(8);
  for (const auto& column : columns_of_readme()) {
    INFO(name(column.options.rule));
    const auto cell = cell_of(column, "routed sum");
    const auto x = random_case(random, column.options, true);
    if (cell == "undefined")
      CHECK_THROWS_AS(group_scaling(TensorGroup::head, x.target, x.proxy, column.options),
                      std::invalid_argument);
    else
      CHECK_THAT(route_scale(x.target.shape, column.options),
                 WithinRel(factor(factors_of(cell, x.letters, true), "R"), 1e-12));
  }
}
