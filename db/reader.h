#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sweeps/sample_sheet.h"
#include "sweeps/trial.h"

namespace SQLite {
class Database;
}

namespace db {

/// How a spec is written into the `spec` column; the caller knows the format, this room does not.
struct SpecCodec {
  std::function<std::string(const sweeps::TrialSpec&)> to_text;
  std::function<sweeps::TrialSpec(const std::string&)> from_text;
};

/// The study a database holds, as it was last run.
struct StudyRow {
  std::int64_t id = 0;
  std::string name;
  std::string text;  // resolved TOML
  std::string hash;
  std::string fingerprint;  // of the data
  std::string file;         // where the study file lay
  std::string created;      // UTC
};

/// A trial as a person names it.
struct TrialRow {
  std::int64_t id = 0;
  sweeps::TrialKey key;
  std::string name;
  sweeps::TrialState state = sweeps::TrialState::waiting;
};

/// values[i] of one metric of one trial at steps[i], in order of steps; a value that was not finite is NaN.
struct CurveSeries {
  sweeps::TrialKey trial;
  std::string metric;
  std::vector<std::int64_t> steps;
  std::vector<double> values;
};

/// Reads typed rows; works while a run is on and after it died. Every method throws StoreError.
class Reader {
 public:
  Reader(const std::filesystem::path& file, SpecCodec codec);
  ~Reader();
  Reader(Reader&&) noexcept;

  const std::filesystem::path& file() const { return file_; }
  std::optional<StudyRow> study() const;
  /// Every trial that the study asks for (dropped ones are left out), in the order they were planned.
  std::vector<sweeps::TrialResult> results() const;
  /// The trial of this number; else those of this name, dropped ones left out.
  std::vector<TrialRow> find(const std::string& number_or_name) const;
  /// Every curve; of steps that were trained twice the later attempt's value.
  std::vector<CurveSeries> curves() const;
  /// What trials drew, those of diffusion models only.
  std::map<sweeps::TrialKey, sweeps::SampleSheet> samples() const;

 protected:
  Reader(const std::filesystem::path& file, SpecCodec codec, std::unique_ptr<SQLite::Database> database);
  std::map<sweeps::TrialKey, sweeps::EvalCurve> evaluations() const;
  std::map<sweeps::TrialKey, std::vector<sweeps::BranchLoss>> branches() const;
  std::vector<CurveSeries> curves(const std::string& metric) const;  // empty: all

  std::filesystem::path file_;
  SpecCodec codec_;
  std::unique_ptr<SQLite::Database> database_;
};

}  // namespace db
