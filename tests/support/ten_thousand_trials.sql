-- Makes a database of one proxy trial one of 10,000, each with an attempt and a curve of 100 points in ten chunks.
WITH RECURSIVE number(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM number WHERE i < 10000)
INSERT INTO trial (id, key, study_id, name, role, lr, wd, init_std, seed, spec, state, loss, steps, seconds, created, changed)
SELECT i, printf('%032x', i), study_id, 'proxy ' || i, 1, lr * (1 + i * 0.0003), 0.01 * (1 + i % 100), init_std, seed,
  spec, 0, NULL, NULL, NULL, created, changed
FROM number, trial WHERE trial.id = 1;

UPDATE trial SET state = 2, loss = 2.5 + ((id * 7919) % 10007) / 10007.0, steps = 100, seconds = 1.5;

INSERT INTO attempt (trial_id, number, state, first_step, step, device, device_name, host, worker_pid, worker_build, log,
  started, ended)
SELECT id, 1, 2, 0, 100, 'cpu', 'none', 'host', 1, 'fake', printf('a.db.d/logs/trial-%04d.log', id),
  '2026-11-22 01:30:00.123', '2026-11-22 01:30:01.623'
FROM trial;

WITH RECURSIVE chunk(c) AS (SELECT 0 UNION ALL SELECT c + 1 FROM chunk WHERE c < 9)
INSERT INTO curve_chunk (trial_id, attempt, metric, steps, "values")
SELECT id, 1, 'train_loss',
  printf('[%d,%d,%d,%d,%d,%d,%d,%d,%d,%d]', 10 * c, 10 * c + 1, 10 * c + 2, 10 * c + 3, 10 * c + 4, 10 * c + 5,
    10 * c + 6, 10 * c + 7, 10 * c + 8, 10 * c + 9),
  printf('[%.17g,%.17g,%.17g,%.17g,%.17g,%.17g,%.17g,%.17g,%.17g,%.17g]', loss + 1.0 / (c + 1), loss + 1.1 / (c + 2),
    loss + 1.2 / (c + 3), loss + 1.3 / (c + 4), loss + 1.4 / (c + 5), loss + 1.5 / (c + 6), loss + 1.6 / (c + 7),
    loss + 1.7 / (c + 8), loss + 1.8 / (c + 9), loss + 1.9 / (c + 10))
FROM trial, chunk ORDER BY id, c;
