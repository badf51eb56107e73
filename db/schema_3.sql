-- What version 3 adds: who owns the database, which program made a result, and how every attempt ended.

-- Drawn once, and never written again: the file knows whose log (-wal) it is given.
CREATE TABLE identity (
  id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
INSERT INTO identity VALUES (lower(hex(randomblob(16))));

-- One row. Whoever opens the database for writing raises the epoch; a writer that finds another epoch than its own
-- has lost the database to a newer one and writes nothing more.
CREATE TABLE owner (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  epoch INTEGER NOT NULL,
  database TEXT NOT NULL,
  log INTEGER NOT NULL,
  pid INTEGER,
  host TEXT,
  started TEXT
) STRICT;
INSERT INTO owner (id, epoch, database, log) SELECT 1, 0, identity.id, 1 FROM identity;

CREATE TABLE run (
  id INTEGER PRIMARY KEY,
  study_id INTEGER NOT NULL REFERENCES study (id),
  epoch INTEGER NOT NULL,
  version TEXT NOT NULL,
  git_commit TEXT NOT NULL,
  program_hash TEXT NOT NULL,
  worker_hash TEXT NOT NULL,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  started TEXT NOT NULL
) STRICT;

ALTER TABLE attempt ADD COLUMN run_id INTEGER REFERENCES run (id);
ALTER TABLE attempt ADD COLUMN device_uuid TEXT;
ALTER TABLE attempt ADD COLUMN last_lines TEXT;
ALTER TABLE attempt ADD COLUMN peak_memory INTEGER;

CREATE VIEW attempts AS
SELECT
  attempt.trial_id AS trial,
  trial.name AS name,
  attempt.number AS attempt,
  CASE attempt.state WHEN 1 THEN 'running' WHEN 2 THEN 'complete' WHEN 3 THEN 'diverged' WHEN 4 THEN 'failed'
    WHEN 5 THEN 'pruned' END AS state,
  CASE attempt.failure WHEN 0 THEN 'crash' WHEN 1 THEN 'oom_gpu' WHEN 2 THEN 'oom_host' WHEN 3 THEN 'stalled'
    WHEN 4 THEN 'worker_lost' WHEN 5 THEN 'user_error' WHEN 6 THEN 'cancelled' WHEN 7 THEN 'gpu_lost' WHEN 8 THEN 'disk_full' END AS cause,
  attempt.message AS message,
  attempt.first_step AS first_step,
  attempt.step AS step,
  attempt.started AS started,
  round((julianday(attempt.ended) - julianday(attempt.started)) * 86400, 3) AS seconds,
  attempt.device AS device,
  attempt.device_name AS device_name,
  attempt.device_uuid AS device_uuid,
  attempt.peak_memory AS peak_memory,
  attempt.host AS host,
  run.git_commit AS git_commit,
  attempt.log AS log,
  attempt.last_lines AS last_lines
FROM attempt
JOIN trial ON trial.id = attempt.trial_id
LEFT JOIN run ON run.id = attempt.run_id;

-- What Optuna calls a storage (its schema v3.2.0.a): its loaders, plots and dashboard read this file as it is.
-- One of its studies is one model: the proxy, or a target; losses of different models are not to be compared.
-- These two are tables because tools look for them among the tables.
CREATE TABLE alembic_version (
  version_num TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
INSERT INTO alembic_version VALUES ('v3.2.0.a');

CREATE TABLE studies (
  study_id INTEGER PRIMARY KEY,
  study_name TEXT NOT NULL UNIQUE,
  target TEXT,
  baseline INTEGER NOT NULL
) STRICT;
CREATE TRIGGER study_is_listed AFTER INSERT ON study BEGIN
  INSERT OR IGNORE INTO studies (study_name, target, baseline) VALUES (NEW.name, NULL, 0);
END;
CREATE TRIGGER trial_is_listed AFTER INSERT ON trial WHEN NEW.target IS NOT NULL BEGIN
  INSERT OR IGNORE INTO studies (study_name, target, baseline)
  SELECT study.name || '/' || NEW.target || iif(NEW.role = 4, '/sp', ''), NEW.target, NEW.role = 4
  FROM study WHERE study.id = NEW.study_id;
END;
INSERT OR IGNORE INTO studies (study_name, target, baseline) SELECT name, NULL, 0 FROM study ORDER BY id;
INSERT OR IGNORE INTO studies (study_name, target, baseline)
  SELECT study.name || '/' || trial.target || iif(trial.role = 4, '/sp', ''), trial.target, trial.role = 4
  FROM trial JOIN study ON study.id = trial.study_id WHERE trial.target IS NOT NULL ORDER BY trial.id;

-- Every trial but dropped ones, with the study and the number that Optuna is told; a number never changes.
CREATE VIEW optuna_trials AS
SELECT listed.id AS trial_id, listed.study_id AS study_id, listed.number AS number, results.state AS state,
  results.loss AS loss
FROM (
  SELECT trial.id AS id, studies.study_id AS study_id,
    row_number() OVER (PARTITION BY studies.study_id ORDER BY trial.id) - 1 AS number
  FROM trial JOIN studies ON studies.target IS trial.target AND studies.baseline = (trial.role = 4)
) AS listed
JOIN results ON results.trial = listed.id
WHERE results.state != 'dropped';

CREATE VIEW version_info AS SELECT 1 AS version_info_id, 12 AS schema_version, '3.2.0' AS library_version;

CREATE VIEW study_directions AS
SELECT study_id AS study_direction_id, 'MINIMIZE' AS direction, study_id, 0 AS objective FROM studies;

CREATE VIEW study_user_attributes AS
SELECT studies.study_id * 4 + attribute.key AS study_user_attribute_id, studies.study_id AS study_id,
  json_extract('["study", "data", "program"]', '$[' || attribute.key || ']') AS key,
  json_quote(CASE attribute.key WHEN 0 THEN study.text WHEN 1 THEN study.fingerprint ELSE study.program END) AS value_json
FROM studies
JOIN study ON study.id = (SELECT max(id) FROM study)
JOIN json_each('[0, 1, 2]') AS attribute;

CREATE VIEW study_system_attributes AS
SELECT study_id AS study_system_attribute_id, study_id, 'study:metric_names' AS key, '["loss"]' AS value_json
FROM studies;

CREATE VIEW trials AS
SELECT optuna_trials.trial_id AS trial_id, optuna_trials.number AS number, optuna_trials.study_id AS study_id,
  CASE optuna_trials.state WHEN 'waiting' THEN 'WAITING' WHEN 'running' THEN 'RUNNING' WHEN 'complete' THEN 'COMPLETE'
    WHEN 'pruned' THEN 'PRUNED' ELSE 'FAIL' END AS state,
  (SELECT min(started) || '000' FROM attempt WHERE attempt.trial_id = optuna_trials.trial_id) AS datetime_start,
  CASE WHEN optuna_trials.state NOT IN ('waiting', 'running') THEN trial.changed || '000' END AS datetime_complete
FROM optuna_trials JOIN trial ON trial.id = optuna_trials.trial_id;

-- The range is the same in all trials of a study: what was tried, and an octave more on either side.
CREATE VIEW trial_params AS
SELECT trial.id * 4 + param.key AS param_id, trial.id AS trial_id, param.value AS param_name,
  CASE param.key WHEN 0 THEN trial.lr WHEN 1 THEN trial.wd ELSE trial.init_std END AS param_value,
  json_object('name', 'FloatDistribution', 'attributes', json_object(
    'low', CASE param.key WHEN 0 THEN range.lr_low WHEN 1 THEN range.wd_low ELSE range.init_std_low END / 2,
    'high', CASE param.key WHEN 0 THEN range.lr_high WHEN 1 THEN range.wd_high ELSE range.init_std_high END * 2,
    'step', NULL,
    'log', json(iif(param.key = 1 AND range.wd_low <= 0, 'false', 'true')))) AS distribution_json
FROM optuna_trials
JOIN trial ON trial.id = optuna_trials.trial_id
JOIN (
  SELECT target, role = 4 AS baseline, min(lr) AS lr_low, max(lr) AS lr_high, min(wd) AS wd_low, max(wd) AS wd_high,
    min(init_std) AS init_std_low, max(init_std) AS init_std_high
  FROM trial GROUP BY target, role = 4
) AS range ON range.target IS trial.target AND range.baseline = (trial.role = 4)
JOIN json_each('["lr", "weight_decay", "init_std"]') AS param;

CREATE VIEW trial_values AS
SELECT trial_id AS trial_value_id, trial_id, 0 AS objective, loss AS value, 'FINITE' AS value_type
FROM optuna_trials WHERE loss IS NOT NULL;

CREATE VIEW trial_intermediate_values AS
SELECT chunk.trial_id * 4294967296 + at.value AS trial_intermediate_value_id, chunk.trial_id AS trial_id,
  at.value AS step, CASE point.type WHEN 'null' THEN NULL ELSE point.value END AS intermediate_value,
  CASE point.type WHEN 'null' THEN 'NAN' ELSE 'FINITE' END AS intermediate_value_type
FROM curve_chunk AS chunk
JOIN trial ON trial.id = chunk.trial_id AND trial.state != 6
JOIN json_each(chunk.steps) AS at
JOIN json_each(chunk."values") AS point ON point.key = at.key
WHERE chunk.metric = 'eval_loss'
GROUP BY chunk.trial_id, at.value
HAVING chunk.attempt = max(chunk.attempt);

CREATE VIEW trial_user_attributes AS
SELECT results.trial * 16 + attribute.key AS trial_user_attribute_id, results.trial AS trial_id,
  attribute.value AS key,
  json_quote(CASE attribute.key WHEN 0 THEN results.name WHEN 1 THEN results.role WHEN 2 THEN results.seed
    WHEN 3 THEN results.state WHEN 4 THEN results.excess WHEN 5 THEN results.steps WHEN 6 THEN results.seconds
    WHEN 7 THEN results.device WHEN 8 THEN results.attempts ELSE trial.message END) AS value_json
FROM results
JOIN trial ON trial.id = results.trial
JOIN json_each(
  '["name", "role", "seed", "state", "excess", "steps", "seconds", "device", "attempts", "message"]') AS attribute
WHERE results.state != 'dropped' AND value_json != 'null';

CREATE VIEW trial_system_attributes AS
SELECT 0 AS trial_system_attribute_id, 0 AS trial_id, '' AS key, '' AS value_json WHERE 0;

CREATE VIEW trial_heartbeats AS SELECT 0 AS trial_heartbeat_id, 0 AS trial_id, '' AS heartbeat WHERE 0;
