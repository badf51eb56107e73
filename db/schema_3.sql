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
