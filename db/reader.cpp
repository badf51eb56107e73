#include "db/reader.h"

#include <charconv>
#include <limits>
#include <map>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>

#include "db/sqlite.h"

namespace db {
namespace {

template <class Value>
std::optional<Value> optional_column(const SQLite::Column& column) {
  if (column.isNull()) return std::nullopt;
  if constexpr (std::is_same_v<Value, double>)
    return column.getDouble();
  else
    return column.getInt64();
}

/// "[1,2.5,null]"; null becomes NaN.
template <class Number>
std::vector<Number> parse_array(std::string_view text) {
  std::vector<Number> numbers;
  const char* at = text.data() + 1;
  const char* const end = text.data() + text.size() - 1;
  while (at < end) {
    Number number{};
    if (*at == 'n') {
      number = std::numeric_limits<Number>::quiet_NaN();
      at += 4;
    } else {
      const auto [next, error] = std::from_chars(at, end, number);
      if (error != std::errc{})
        throw StoreError(Trouble::corrupt, fmt::format("curve_chunk: cannot read {}", text));
      at = next;
    }
    numbers.push_back(number);
    ++at;  // the comma
  }
  return numbers;
}

}  // namespace

Reader::Reader(const std::filesystem::path& file, SpecCodec codec)
    : Reader(file, std::move(codec), open_reader(file)) {}
Reader::Reader(const std::filesystem::path& file, SpecCodec codec, std::unique_ptr<SQLite::Database> database)
    : file_(file), codec_(std::move(codec)), database_(std::move(database)) {}
Reader::~Reader() = default;
Reader::Reader(Reader&&) noexcept = default;

std::optional<StudyRow> Reader::study() const {
  return guarded(file_, [&]() -> std::optional<StudyRow> {
    SQLite::Statement select(
        *database_,
        "SELECT id, name, text, hash, fingerprint, file, created FROM study ORDER BY id DESC LIMIT 1");
    if (!select.executeStep()) return std::nullopt;
    return StudyRow{select.getColumn(0).getInt64(),  select.getColumn(1).getString(),
                    select.getColumn(2).getString(), select.getColumn(3).getString(),
                    select.getColumn(4).getString(), select.getColumn(5).getString(),
                    select.getColumn(6).getString()};
  });
}

std::vector<sweeps::TrialResult> Reader::results() const {
  return guarded(file_, [&] {
    SQLite::Statement select(*database_, R"(
      SELECT trial.key, trial.spec, trial.state, results.attempts, trial.loss, trial.floor, trial.steps,
             trial.diverged_step, trial.seconds, results.device, trial.message
      FROM trial JOIN results ON results.trial = trial.id WHERE trial.state != ? ORDER BY trial.id)");
    // Version 1 had one state for both.
    select.bind(1, static_cast<int>(schema_version(*database_) < 2 ? sweeps::TrialState::pruned
                                                                   : sweeps::TrialState::dropped));
    std::vector<sweeps::TrialResult> results;
    auto evaluations = this->evaluations();
    auto branches = this->branches();
    std::map<sweeps::TrialKey, double> noise;
    for (const auto& curve : curves("gradient_noise")) noise[curve.trial] = curve.values.back();
    while (select.executeStep()) {
      sweeps::TrialResult& result = results.emplace_back();
      result.key = select.getColumn(0).getString();
      result.spec = codec_.from_text(select.getColumn(1).getString());
      result.state = static_cast<sweeps::TrialState>(select.getColumn(2).getInt());
      result.attempts = select.getColumn(3).getInt64();
      result.loss = optional_column<double>(select.getColumn(4));
      result.floor = optional_column<double>(select.getColumn(5));
      result.steps = optional_column<std::int64_t>(select.getColumn(6));
      result.diverged_step = optional_column<std::int64_t>(select.getColumn(7));
      result.seconds = optional_column<double>(select.getColumn(8));
      result.device = select.getColumn(9).getString();
      result.message = select.getColumn(10).getString();
      result.evaluations = std::move(evaluations[result.key]);
      result.branches = std::move(branches[result.key]);
      if (const auto found = noise.find(result.key); found != noise.end()) result.gradient_noise = found->second;
    }
    return results;
  });
}

std::vector<TrialRow> Reader::find(const std::string& number_or_name) const {
  return guarded(file_, [&] {
    // Version 1 had one state for pruned and dropped.
    SQLite::Statement select(*database_, R"(
      SELECT id, key, trial.name, trial.state FROM trial JOIN results ON results.trial = id
      WHERE id = (SELECT id FROM trial WHERE CAST(id AS TEXT) = ?1)
        OR (trial.name = ?1 AND trial.state != ?2 AND results.state IS NOT 'dropped'
          AND NOT EXISTS (SELECT 1 FROM trial WHERE CAST(id AS TEXT) = ?1)) ORDER BY id)");
    select.bind(1, number_or_name);
    select.bind(2, static_cast<int>(sweeps::TrialState::dropped));
    std::vector<TrialRow> rows;
    while (select.executeStep())
      rows.push_back({select.getColumn(0).getInt64(), select.getColumn(1).getString(), select.getColumn(2).getString(),
                      static_cast<sweeps::TrialState>(select.getColumn(3).getInt())});
    return rows;
  });
}

std::map<sweeps::TrialKey, sweeps::EvalCurve> Reader::evaluations() const {
  std::map<sweeps::TrialKey, sweeps::EvalCurve> evaluations;
  for (auto& curve : curves("eval_loss"))
    evaluations[curve.trial] = {std::move(curve.steps), std::move(curve.values)};
  return evaluations;
}

std::map<sweeps::TrialKey, std::vector<sweeps::BranchLoss>> Reader::branches() const {
  std::map<sweeps::TrialKey, std::vector<sweeps::BranchLoss>> branches;
  if (schema_version(*database_) < 2) return branches;
  SQLite::Statement select(*database_, R"(
    SELECT trial.key, fraction, branch.steps, branch.loss FROM branch JOIN trial ON trial.id = trial_id
    ORDER BY trial_id, branch.steps)");
  while (select.executeStep())
    branches[select.getColumn(0).getString()].push_back(
        {select.getColumn(1).getDouble(), select.getColumn(2).getInt64(), select.getColumn(3).getDouble()});
  return branches;
}

std::vector<CurveSeries> Reader::curves() const { return curves(""); }

std::vector<CurveSeries> Reader::curves(const std::string& metric) const {
  return guarded(file_, [&] {
    // In this form the index finds one metric's chunks without reading the others.
    const std::string one = metric.empty() ? "" : "WHERE metric = ? AND trial_id IN (SELECT id FROM trial)";
    SQLite::Statement select(*database_, R"(
      SELECT trial.key, metric, curve_chunk.steps, "values" FROM curve_chunk JOIN trial ON trial.id = trial_id )" +
                                             one + " ORDER BY trial_id, metric, attempt, curve_chunk.id");
    if (!metric.empty()) select.bind(1, metric);
    std::map<std::pair<sweeps::TrialKey, std::string>, std::map<std::int64_t, double>> points;
    while (select.executeStep()) {
      auto& series = points[{select.getColumn(0).getString(), select.getColumn(1).getString()}];
      const auto steps = parse_array<std::int64_t>(select.getColumn(2).getString());
      const auto values = parse_array<double>(select.getColumn(3).getString());
      for (std::size_t i = 0; i < std::min(steps.size(), values.size()); ++i) series[steps[i]] = values[i];
    }
    std::vector<CurveSeries> curves;
    for (const auto& [name, series] : points) {
      CurveSeries& curve = curves.emplace_back();
      std::tie(curve.trial, curve.metric) = name;
      for (const auto& [step, value] : series) {
        curve.steps.push_back(step);
        curve.values.push_back(value);
      }
    }
    return curves;
  });
}

std::map<sweeps::TrialKey, sweeps::SampleSheet> Reader::samples() const {
  return guarded(file_, [&] {
    std::map<sweeps::TrialKey, sweeps::SampleSheet> samples;
    if (schema_version(*database_) < 2) return samples;  // it had none
    SQLite::Statement select(*database_, R"(
      SELECT trial.key, width, height, channels, drawn, real FROM sample JOIN trial ON trial.id = trial_id)");
    while (select.executeStep()) {
      const auto blob = [&](int column) {
        const auto value = select.getColumn(column);
        const auto* bytes = static_cast<const std::uint8_t*>(value.getBlob());
        return std::vector<std::uint8_t>(bytes, bytes + value.getBytes());
      };
      sweeps::SampleSheet sheet{select.getColumn(1).getInt64(), select.getColumn(2).getInt64(),
                                select.getColumn(3).getInt64(), blob(4), blob(5)};
      if (!is_sound(sheet))
        throw StoreError(Trouble::corrupt,
                         fmt::format("{}: table sample: pixels do not fit their size", file_.string()));
      samples[select.getColumn(0).getString()] = std::move(sheet);
    }
    return samples;
  });
}

}  // namespace db
