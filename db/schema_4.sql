-- What version 4 adds: which of the trials that have ended the study, edited since, asks for no more.

-- Written anew like censored; the trials themselves stay as they ended.
CREATE TABLE dropped (
  trial_id INTEGER PRIMARY KEY REFERENCES trial (id)
) STRICT;

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
  CASE CASE WHEN dropped.trial_id IS NOT NULL THEN 6 WHEN censored.step IS NOT NULL THEN 5 ELSE trial.state END
    WHEN 0 THEN 'waiting' WHEN 1 THEN 'running' WHEN 2 THEN 'complete' WHEN 3 THEN 'diverged' WHEN 4 THEN 'failed'
    WHEN 5 THEN 'pruned' WHEN 6 THEN 'dropped' END AS state,
  iif(censored.step IS NULL, trial.loss, NULL) AS loss,
  iif(censored.step IS NULL, trial.loss - trial.floor, NULL) AS excess,
  coalesce(censored.step, trial.steps, trial.diverged_step, last.step) AS steps,
  trial.seconds AS seconds,
  last.device AS device,
  coalesce(last.number, 0) AS attempts
FROM trial
LEFT JOIN censored ON censored.trial_id = trial.id
LEFT JOIN dropped ON dropped.trial_id = trial.id
LEFT JOIN attempt AS last
  ON last.trial_id = trial.id
  AND last.number = (SELECT max(number) FROM attempt WHERE attempt.trial_id = trial.id);

-- Optuna counts on numbers without a gap.
DROP VIEW optuna_trials;
CREATE VIEW optuna_trials AS
SELECT results.trial AS trial_id, studies.study_id AS study_id,
  row_number() OVER (PARTITION BY studies.study_id ORDER BY results.trial) - 1 AS number, results.state AS state,
  results.loss AS loss
FROM results JOIN studies ON studies.target IS results.target AND studies.baseline = (results.role = 'check')
WHERE results.state != 'dropped';
