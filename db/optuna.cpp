#include "db/optuna.h"

#include <unistd.h>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>

#include "db/health.h"
#include "db/sqlite.h"

namespace db {
namespace {

namespace fs = std::filesystem;

/// Tables of an Optuna storage, schema v3.2.0.a, as Optuna 5.0.0 makes them.
constexpr const char* kTables = R"(
CREATE TABLE studies (study_id INTEGER NOT NULL PRIMARY KEY, study_name VARCHAR(512) NOT NULL);
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE TABLE version_info (version_info_id INTEGER NOT NULL PRIMARY KEY, schema_version INTEGER,
  library_version VARCHAR(256), CHECK (version_info_id = 1));
CREATE TABLE study_directions (study_direction_id INTEGER NOT NULL PRIMARY KEY, direction VARCHAR(8) NOT NULL,
  study_id INTEGER NOT NULL REFERENCES studies (study_id), objective INTEGER NOT NULL, UNIQUE (study_id, objective));
CREATE TABLE study_user_attributes (study_user_attribute_id INTEGER NOT NULL PRIMARY KEY,
  study_id INTEGER REFERENCES studies (study_id), "key" VARCHAR(512), value_json TEXT, UNIQUE (study_id, "key"));
CREATE TABLE study_system_attributes (study_system_attribute_id INTEGER NOT NULL PRIMARY KEY,
  study_id INTEGER REFERENCES studies (study_id), "key" VARCHAR(512), value_json TEXT, UNIQUE (study_id, "key"));
CREATE TABLE trials (trial_id INTEGER NOT NULL PRIMARY KEY, number INTEGER,
  study_id INTEGER REFERENCES studies (study_id), state VARCHAR(8) NOT NULL, datetime_start DATETIME,
  datetime_complete DATETIME);
CREATE INDEX ix_trials_study_id ON trials (study_id);
CREATE TABLE trial_user_attributes (trial_user_attribute_id INTEGER NOT NULL PRIMARY KEY,
  trial_id INTEGER REFERENCES trials (trial_id), "key" VARCHAR(512), value_json TEXT, UNIQUE (trial_id, "key"));
CREATE TABLE trial_system_attributes (trial_system_attribute_id INTEGER NOT NULL PRIMARY KEY,
  trial_id INTEGER REFERENCES trials (trial_id), "key" VARCHAR(512), value_json TEXT, UNIQUE (trial_id, "key"));
CREATE TABLE trial_params (param_id INTEGER NOT NULL PRIMARY KEY, trial_id INTEGER REFERENCES trials (trial_id),
  param_name VARCHAR(512), param_value FLOAT, distribution_json TEXT, UNIQUE (trial_id, param_name));
CREATE TABLE trial_values (trial_value_id INTEGER NOT NULL PRIMARY KEY,
  trial_id INTEGER NOT NULL REFERENCES trials (trial_id), objective INTEGER NOT NULL, value FLOAT,
  value_type VARCHAR(7) NOT NULL, UNIQUE (trial_id, objective));
CREATE TABLE trial_intermediate_values (trial_intermediate_value_id INTEGER NOT NULL PRIMARY KEY,
  trial_id INTEGER NOT NULL REFERENCES trials (trial_id), step INTEGER NOT NULL, intermediate_value FLOAT,
  intermediate_value_type VARCHAR(7) NOT NULL, UNIQUE (trial_id, step));
CREATE TABLE trial_heartbeats (trial_heartbeat_id INTEGER NOT NULL PRIMARY KEY,
  trial_id INTEGER NOT NULL REFERENCES trials (trial_id), heartbeat DATETIME NOT NULL, UNIQUE (trial_id));
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
)";

/// The view's columns in the table's order.
constexpr const char* kCopy = R"(
INSERT INTO studies SELECT study_id, study_name FROM source.studies;
INSERT INTO version_info SELECT version_info_id, schema_version, library_version FROM source.version_info;
INSERT INTO study_directions SELECT study_direction_id, direction, study_id, objective FROM source.study_directions;
INSERT INTO study_user_attributes SELECT study_user_attribute_id, study_id, "key", value_json
  FROM source.study_user_attributes;
INSERT INTO study_system_attributes SELECT study_system_attribute_id, study_id, "key", value_json
  FROM source.study_system_attributes;
INSERT INTO trials SELECT trial_id, number, study_id, state, datetime_start, datetime_complete FROM source.trials;
INSERT INTO trial_user_attributes SELECT trial_user_attribute_id, trial_id, "key", value_json
  FROM source.trial_user_attributes;
INSERT INTO trial_params SELECT param_id, trial_id, param_name, param_value, distribution_json FROM source.trial_params;
INSERT INTO trial_values SELECT trial_value_id, trial_id, objective, value, value_type FROM source.trial_values;
INSERT INTO trial_intermediate_values
  SELECT trial_intermediate_value_id, trial_id, step, intermediate_value, intermediate_value_type
  FROM source.trial_intermediate_values;
INSERT INTO alembic_version SELECT version_num FROM source.alembic_version;
)";

}  // namespace

void export_optuna(const fs::path& file, const fs::path& copy) {
  {
    const auto source = open_reader(file);
    const auto version = guarded(file, [&] { return schema_version(*source); });
    if (version < 3)
      throw StoreError(Trouble::state, fmt::format("{}: has schema {}, Optuna's views came with 3; `tuneonce run` "
                                                   "brings it up to date",
                                                   file.string(), version));
  }
  if (fs::exists(copy))
    throw StoreError(Trouble::state, fmt::format("{}: exists and is not overwritten; name a new file", copy.string()));
  const fs::path temporary = copy.string() + fmt::format(".new-{}", ::getpid());
  guarded(copy, [&] {
    try {
      {
        SQLite::Database target(temporary.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE | SQLite::OPEN_URI);
        SQLite::Statement attach(target, "ATTACH ? AS source");
        attach.bind(1, read_only_uri(file));
        attach.exec();
        SQLite::Transaction transaction(target);
        target.exec(kTables);
        target.exec(kCopy);
        transaction.commit();
      }
      publish_new_file(temporary, copy);
    } catch (...) {
      std::error_code ignored;
      for (const char* suffix : {"", "-journal"}) fs::remove(temporary.string() + suffix, ignored);
      throw;
    }
  });
}

}  // namespace db
