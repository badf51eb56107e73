"""No-op trials through Optuna: optuna_noop.py STORAGE TRIALS, in the folder it is run in.

STORAGE: sqlite (its RDB storage), journal (its append-only file) or memory. One line of key=value on stdout.
"""

import os
import sys
import time

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

storage, trials = sys.argv[1], int(sys.argv[2])
for name in ("optuna.db", "optuna.journal"):
    if os.path.exists(name):
        os.remove(name)
optuna.logging.set_verbosity(optuna.logging.WARNING)
where = {
    "sqlite": lambda: "sqlite:///optuna.db",
    "journal": lambda: JournalStorage(JournalFileBackend("optuna.journal")),
    "memory": lambda: None,
}[storage]()
study = optuna.create_study(storage=where, sampler=optuna.samplers.RandomSampler(seed=1))
begin, cpu_begin = time.perf_counter(), time.process_time()
study.optimize(lambda trial: trial.suggest_float("lr", 1e-4, 1e-2, log=True), n_trials=trials)
seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu_begin
print(
    f"trials={trials} seconds={seconds:.3f} trials_per_s={trials / seconds:.1f} "
    f"cpu_us_per_trial={1e6 * cpu / trials:.0f}"
)
