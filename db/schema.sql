-- The results database, version 1; schema_2.sql makes it version 2. README.md says what every table, view and
-- column means and who may change it. This file is history and never changes.
-- Numbers stand for the enumerators of sweeps/trial.h and sweeps/drift.h; the views spell them out.

CREATE TABLE study (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  text TEXT NOT NULL,
  hash TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  file TEXT NOT NULL,
  program TEXT NOT NULL,
  created TEXT NOT NULL
) STRICT;

CREATE TABLE trial (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  study_id INTEGER NOT NULL REFERENCES study (id),
  name TEXT NOT NULL,
  role INTEGER NOT NULL,
  target TEXT,
  lr REAL NOT NULL,
  wd REAL NOT NULL,
  init_std REAL NOT NULL,
  seed TEXT NOT NULL,
  spec TEXT NOT NULL,
  state INTEGER NOT NULL DEFAULT 0,
  loss REAL,
  floor REAL,
  steps INTEGER,
  diverged_step INTEGER,
  seconds REAL,
  message TEXT,
  forgiven INTEGER NOT NULL DEFAULT 0,
  created TEXT NOT NULL,
  changed TEXT NOT NULL
) STRICT;
CREATE INDEX trial_by_state ON trial (state);

CREATE TABLE attempt (
  trial_id INTEGER NOT NULL REFERENCES trial (id),
  number INTEGER NOT NULL,
  state INTEGER NOT NULL,
  failure INTEGER,
  message TEXT,
  first_step INTEGER,
  step INTEGER,
  device TEXT NOT NULL,
  device_name TEXT NOT NULL,
  host TEXT NOT NULL,
  worker_pid INTEGER NOT NULL,
  worker_build TEXT NOT NULL,
  log TEXT NOT NULL,
  started TEXT NOT NULL,
  ended TEXT,
  PRIMARY KEY (trial_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE curve_chunk (
  id INTEGER PRIMARY KEY,
  trial_id INTEGER NOT NULL REFERENCES trial (id),
  attempt INTEGER NOT NULL,
  metric TEXT NOT NULL,
  steps TEXT NOT NULL,
  "values" TEXT NOT NULL
) STRICT;
CREATE INDEX curve_chunk_by_trial ON curve_chunk (trial_id, metric, attempt);

CREATE TABLE optimum (
  model TEXT PRIMARY KEY,
  study_id INTEGER NOT NULL REFERENCES study (id),
  lr REAL,
  lr_low REAL,
  lr_high REAL,
  wd REAL,
  wd_low REAL,
  wd_high REAL,
  wd_fitted INTEGER NOT NULL,
  bracketed INTEGER NOT NULL,
  init_std REAL,
  loss REAL,
  sigma REAL,
  skew REAL,
  curvature_lr REAL,
  curvature_cross REAL,
  curvature_wd REAL,
  num_points INTEGER NOT NULL,
  num_diverged INTEGER NOT NULL,
  description TEXT NOT NULL,
  decided TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE target (
  name TEXT PRIMARY KEY,
  study_id INTEGER NOT NULL REFERENCES study (id),
  moe TEXT NOT NULL,
  lr REAL NOT NULL,
  wd REAL NOT NULL,
  init_std REAL NOT NULL,
  route_scale REAL NOT NULL,
  branch_scale REAL NOT NULL,
  sigma0_ratio REAL NOT NULL,
  loss REAL,
  baseline_loss REAL,
  decided TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE target_group (
  target TEXT NOT NULL REFERENCES target (name),
  position INTEGER NOT NULL,
  tensor_group TEXT NOT NULL,
  init_std_factor REAL NOT NULL,
  lr_factor REAL NOT NULL,
  wd_factor REAL NOT NULL,
  eps_factor REAL NOT NULL,
  one_minus_beta_factor REAL NOT NULL,
  forward_factor REAL NOT NULL,
  init_std REAL NOT NULL,
  lr REAL NOT NULL,
  wd REAL NOT NULL,
  eps REAL NOT NULL,
  beta1 REAL NOT NULL,
  beta2 REAL NOT NULL,
  decays INTEGER NOT NULL,
  source TEXT NOT NULL,
  PRIMARY KEY (target, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE drift_check (
  target TEXT PRIMARY KEY REFERENCES target (name),
  verdict INTEGER NOT NULL,
  reason TEXT NOT NULL,
  num_points INTEGER NOT NULL,
  num_diverged INTEGER NOT NULL,
  tolerance REAL,
  sigma REAL,
  lr_shift REAL,
  lr_shift_low REAL,
  lr_shift_high REAL,
  wd_shift REAL,
  wd_shift_low REAL,
  wd_shift_high REAL,
  tau_shift REAL,
  regret REAL,
  regret_debiased REAL,
  regret_upper REAL,
  probability_within REAL,
  gradient_p REAL,
  location_equivalent INTEGER NOT NULL,
  lr_factor REAL,
  wd_factor REAL,
  more_runs INTEGER NOT NULL,
  decided TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
  id INTEGER PRIMARY KEY,
  time TEXT NOT NULL,
  kind TEXT NOT NULL,
  trial_id INTEGER REFERENCES trial (id),
  message TEXT NOT NULL
) STRICT;

CREATE VIEW results AS
SELECT
  trial.id AS trial,
  trial.name AS name,
  CASE trial.role WHEN 0 THEN 'scan' WHEN 1 THEN 'proxy' WHEN 2 THEN 'target' WHEN 3 THEN 'drift'
    WHEN 4 THEN 'check' END AS role,
  trial.target AS target,
  trial.lr AS lr,
  trial.wd AS wd,
  trial.init_std AS init_std,
  trial.seed AS seed,
  CASE trial.state WHEN 0 THEN 'waiting' WHEN 1 THEN 'running' WHEN 2 THEN 'complete' WHEN 3 THEN 'diverged'
    WHEN 4 THEN 'failed' WHEN 5 THEN 'pruned' END AS state,
  trial.loss AS loss,
  trial.loss - trial.floor AS excess,
  coalesce(trial.steps, trial.diverged_step, last.step) AS steps,
  trial.seconds AS seconds,
  last.device AS device,
  coalesce(last.number, 0) AS attempts
FROM trial
LEFT JOIN attempt AS last
  ON last.trial_id = trial.id
  AND last.number = (SELECT max(number) FROM attempt WHERE attempt.trial_id = trial.id);

-- A resumed attempt sends some steps again; the later attempt's value counts (max() picks its row).
CREATE VIEW curves AS
SELECT trial, name, metric, step, value
FROM (
  SELECT
    chunk.trial_id AS trial,
    trial.name AS name,
    chunk.metric AS metric,
    at.value AS step,
    CASE point.type WHEN 'null' THEN NULL ELSE point.value END AS value,
    max(chunk.attempt)
  FROM curve_chunk AS chunk
  JOIN trial ON trial.id = chunk.trial_id
  JOIN json_each(chunk.steps) AS at
  JOIN json_each(chunk."values") AS point ON point.key = at.key
  GROUP BY chunk.trial_id, chunk.metric, at.value
);
