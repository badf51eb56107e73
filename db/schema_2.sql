-- What version 2 adds. A new database runs through all schema files, an older one through those it lacks.

-- Version 1 said "pruned" of trials that nobody asks for any more; now it means stopped early.
UPDATE trial SET state = 6 WHERE state = 5;

CREATE TABLE censored (
  trial_id INTEGER PRIMARY KEY REFERENCES trial (id),
  step INTEGER NOT NULL,
  reason TEXT NOT NULL,
  decided TEXT NOT NULL
) STRICT;

CREATE TABLE branch (
  trial_id INTEGER NOT NULL REFERENCES trial (id),
  fraction REAL NOT NULL,
  steps INTEGER NOT NULL,
  loss REAL NOT NULL,
  PRIMARY KEY (trial_id, steps)
) STRICT, WITHOUT ROWID;

CREATE TABLE sample (
  trial_id INTEGER PRIMARY KEY REFERENCES trial (id),
  width INTEGER NOT NULL,
  height INTEGER NOT NULL,
  channels INTEGER NOT NULL,
  drawn BLOB NOT NULL,
  real BLOB NOT NULL
) STRICT;

CREATE VIEW branches AS
SELECT
  trial.id AS trial,
  trial.name AS name,
  trial.lr AS lr,
  trial.wd AS wd,
  branch.fraction AS fraction,
  branch.steps AS steps,
  branch.loss AS loss
FROM branch JOIN trial ON trial.id = branch.trial_id;

-- A censored trial counts as pruned whether it was stopped in time or not.
DROP VIEW results;
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
  CASE iif(censored.step IS NULL, trial.state, 5) WHEN 0 THEN 'waiting' WHEN 1 THEN 'running' WHEN 2 THEN 'complete'
    WHEN 3 THEN 'diverged' WHEN 4 THEN 'failed' WHEN 5 THEN 'pruned' WHEN 6 THEN 'dropped' END AS state,
  iif(censored.step IS NULL, trial.loss, NULL) AS loss,
  iif(censored.step IS NULL, trial.loss - trial.floor, NULL) AS excess,
  coalesce(censored.step, trial.steps, trial.diverged_step, last.step) AS steps,
  trial.seconds AS seconds,
  last.device AS device,
  coalesce(last.number, 0) AS attempts
FROM trial
LEFT JOIN censored ON censored.trial_id = trial.id
LEFT JOIN attempt AS last
  ON last.trial_id = trial.id
  AND last.number = (SELECT max(number) FROM attempt WHERE attempt.trial_id = trial.id);
