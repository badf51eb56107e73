"""Trials through Ray Tune, two at a time, in its fastest setting: ray_noop.py TRIALS [SECONDS PER TRIAL].

No dashboard, no loggers, workers that are used again. One line of key=value on stdout.
"""

import os
import sys
import tempfile
import time

os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
import ray
from ray import tune

trials = int(sys.argv[1])
sleep = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0


class Trial(tune.Trainable):
    def setup(self, config):
        pass

    def reset_config(self, config):
        return True

    def step(self):
        if sleep:
            time.sleep(sleep)
        return {"loss": self.config["lr"], "done": True}

    def save_checkpoint(self, folder):
        pass


begin = time.perf_counter()
ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
startup = time.perf_counter() - begin
begin = time.perf_counter()
with tempfile.TemporaryDirectory() as folder:
    results = tune.Tuner(
        Trial,
        param_space={"lr": tune.loguniform(1e-4, 1e-2)},
        tune_config=tune.TuneConfig(
            num_samples=trials, max_concurrent_trials=2, reuse_actors=True, metric="loss", mode="min"
        ),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    ).fit()
seconds = time.perf_counter() - begin
assert len(results) == trials and results.num_errors == 0
print(f"trials={trials} seconds={seconds:.3f} trials_per_s={trials / seconds:.1f} startup_s={startup:.3f}")
