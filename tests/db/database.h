#pragma once

#include <cmath>
#include <fstream>
#include <iterator>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "db/store.h"
#include "worker/protocol.h"

/// What the tests of the database share.
namespace test {

inline db::SpecCodec codec() {
  return {[](const sweeps::TrialSpec& spec) { return worker::to_json(spec).dump(); },
          [](const std::string& text) { return worker::spec_from_json(nlohmann::json::parse(text)); }};
}

inline sweeps::TrialSpec trial(double log2_lr, sweeps::TrialRole role = sweeps::TrialRole::proxy) {
  sweeps::TrialSpec spec;
  spec.name = fmt::format("lr 2^{}", log2_lr);
  spec.role = role;
  spec.base.lr = std::exp2(log2_lr);
  spec.seed = 0xfedcba9876543210;
  spec.data.fingerprint = "f";
  return spec;
}

inline sweeps::Study study(const std::string& name = "small") {
  sweeps::Study result;
  result.name = name;
  result.text = fmt::format("name = \"{}\"\n", name);
  result.hash = "h";
  result.data.fingerprint = "f";
  return result;
}

/// A store with a study and these trials waiting.
inline db::Store store_with(const std::filesystem::path& file, const std::vector<sweeps::TrialSpec>& trials) {
  auto store = db::Store::open(file, codec());
  store.add_plan(store.put_study(study(), "small.toml"), trials);
  return store;
}

/// Runs SQL on any file, as another program would.
inline void run_sql(const std::filesystem::path& file, const std::string& sql) {
  SQLite::Database database(file.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
  database.exec(sql);
}

inline std::string bytes(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

}  // namespace test
