"""Optuna, its plots and its dashboard read a database of ours as it is, and what `export optuna` makes of it.

usage: optuna_test.py TUNEONCE FAKE_WORKER
"""
import io
import json
import math
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings

import optuna
import optuna_dashboard
from optuna.trial import TrialState

STUDY = """
schema = 1
name = "small"
seed = 1
[data]
source = "teacher"
[model]
width = 64
depth = 2
head_size = 16
context = 32
[train]
steps = 40
batch = 4
[search]
method = "list"
points = [%s]
[[target]]
name = "8e2a"
moe = "8e2a"
drift = true
"""
POINTS = ["[0.001, 0.1]", "[0.002, 0.1]", "[0.004, 0.05]", "[0.004, 0.2]", "[0.008, 0.1]", "[0.016, 0.1]",
          "[0.1, 0.1]", "[0.0005, 0.1]", "[0.00025, 0.1]"]


class Sandbox:
    def __init__(self, folder, tuneonce, worker):
        self.folder, self.tuneonce, self.worker = pathlib.Path(folder), tuneonce, worker
        self.database = self.folder / "small.db"

    def start(self, points, behaviour, workers):
        (self.folder / "small.toml").write_text(STUDY % ", ".join(points))
        environment = dict(os.environ, TUNEONCE_WORKER=self.worker, TUNEONCE_FAKE=behaviour)
        return subprocess.Popen([self.tuneonce, "run", "small.toml", "-j", str(workers)], cwd=self.folder,
                                env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def query(self, sql):
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as connection:
            return connection.execute(sql).fetchall()


def make_database(box):
    """Every state there is: a run to the end, then one that is killed with a trial running and one waiting."""
    run = box.start(POINTS, "fail_name=wd=0.2 lag=3e-4 wait_ms=20000", 9)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 1, errors  # one trial failed
    run = box.start([p for p in POINTS if "0.0005" not in p] + ["[0.012, 0.1]", "[0.003, 0.1]"],
                    "fail_name=wd=0.2 sleep_ms=60000", 1)
    deadline = time.monotonic() + 60
    wanted = "SELECT count(DISTINCT state) FROM results WHERE state IN ('running', 'failed')"
    while box.query(wanted) != [(2,)] and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    # A point that was not finite, of a step that was trained twice.
    with sqlite3.connect(box.database) as connection:
        for attempt, value in ((0, "7.5"), (1, "null")):
            connection.execute("INSERT INTO curve_chunk (trial_id, attempt, metric, steps, \"values\") "
                               "SELECT id, ?, 'eval_loss', '[39]', ? FROM trial WHERE lr = 0.1",
                               (attempt, f"[{value}]"))
    states = {row[0] for row in box.query("SELECT DISTINCT state FROM results")}
    assert states >= {"waiting", "running", "complete", "diverged", "failed", "pruned"}, states


def results(box, condition):
    columns = ["trial", "name", "lr", "wd", "init_std", "seed", "state", "loss", "steps", "excess", "device"]
    rows = box.query(f"SELECT {', '.join(columns)} FROM results WHERE {condition} AND state != 'dropped' ORDER BY trial")
    return [dict(zip(columns, row)) for row in rows]


def check_study(box, study, condition):
    ours = results(box, condition)
    theirs = study.get_trials()
    assert len(ours) == len(theirs) > 0
    assert [trial.number for trial in theirs] == list(range(len(theirs)))
    assert study.direction == optuna.study.StudyDirection.MINIMIZE and study.metric_names == ["loss"]
    states = {"waiting": TrialState.WAITING, "running": TrialState.RUNNING, "complete": TrialState.COMPLETE,
              "diverged": TrialState.FAIL, "failed": TrialState.FAIL, "pruned": TrialState.PRUNED}
    for row, trial in zip(ours, theirs):
        assert trial._trial_id == row["trial"]
        assert trial.state == states[row["state"]], (row, trial)
        assert trial.value == row["loss"], (row, trial)
        assert trial.params == {"lr": row["lr"], "weight_decay": row["wd"], "init_std": row["init_std"]}
        for name, distribution in trial.distributions.items():
            assert distribution.log and distribution.low < trial.params[name] < distribution.high
            assert distribution == theirs[0].distributions[name]
        assert trial.user_attrs["seed"] == row["seed"] and trial.user_attrs["name"] == row["name"]
        assert trial.user_attrs["state"] == row["state"]
        # SQLite writes 15 digits of a number into JSON.
        assert row["excess"] is None or math.isclose(trial.user_attrs["excess"], row["excess"], rel_tol=1e-14)
        curve = dict(box.query("SELECT step, value FROM curves WHERE metric = 'eval_loss' AND trial = %d" % row["trial"]))
        assert trial.intermediate_values.keys() == curve.keys()
        for step, value in curve.items():
            assert trial.intermediate_values[step] == value or value is None and math.isnan(trial.intermediate_values[step])
        assert (trial.datetime_start is None) == (row["state"] == "waiting")
        assert (trial.datetime_complete is None) == (row["state"] in ("waiting", "running"))
    best = min((row for row in ours if row["loss"] is not None), key=lambda row: row["loss"])
    assert study.best_trial._trial_id == best["trial"] and study.best_value == best["loss"]


def check_storage(box, url):
    names = sorted(optuna.study.get_all_study_names(url))
    assert names == ["small", "small/8e2a", "small/8e2a/sp"], names
    proxy = optuna.load_study(study_name="small", storage=url)
    check_study(box, proxy, "target IS NULL")
    check_study(box, optuna.load_study(study_name="small/8e2a", storage=url), "target = '8e2a' AND role != 'check'")
    check_study(box, optuna.load_study(study_name="small/8e2a/sp", storage=url), "role = 'check'")
    nan = [t for t in proxy.trials if any(math.isnan(v) for v in t.intermediate_values.values())]
    assert len(nan) == 1 and nan[0].state == TrialState.FAIL
    assert proxy.user_attrs["study"].startswith("schema = 1")

    frame = proxy.trials_dataframe()
    assert len(frame) == len(proxy.trials) and {"params_lr", "value_loss", "state", "user_attrs_seed"} <= set(frame.columns)
    assert (frame.number.diff().dropna() > 0).all()
    for plot in (optuna.visualization.plot_optimization_history, optuna.visualization.plot_intermediate_values,
                 optuna.visualization.plot_contour, optuna.visualization.plot_slice):
        assert len(plot(proxy).data) > 0, plot
    history = optuna.visualization.plot_optimization_history(proxy).data[0]
    assert list(history.y) == [row["loss"] for row in results(box, "target IS NULL AND state = 'complete'")]


def ask(app, path):
    answer = {}
    environment = {"REQUEST_METHOD": "GET", "PATH_INFO": path.partition("?")[0], "QUERY_STRING": path.partition("?")[2],
                   "SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr,
                   "wsgi.url_scheme": "http", "wsgi.version": (1, 0)}
    body = b"".join(app(environment, lambda status, headers, *_: answer.update(status=status)))
    assert answer["status"].startswith("200"), (path, answer, body)
    return json.loads(body)


def check_dashboard(box, url):
    app = optuna_dashboard.wsgi(url)
    studies = ask(app, "/api/studies")["study_summaries"]
    assert [study["study_name"] for study in studies] == ["small", "small/8e2a", "small/8e2a/sp"], studies
    detail = ask(app, "/api/studies/1?after=0")
    assert len(detail["trials"]) == len(results(box, "target IS NULL"))
    assert detail["best_trials"][0]["trial_id"] == min(
        (row for row in results(box, "target IS NULL AND state = 'complete'")), key=lambda row: row["loss"])["trial"]
    importances = ask(app, "/api/studies/1/param_importances")["param_importances"]
    assert {item["name"] for item in importances[0]} >= {"lr", "weight_decay"}, importances


def check_export(box):
    def export():
        return subprocess.run([box.tuneonce, "export", "optuna", "small.db", "--out", "x.db"], cwd=box.folder,
                              capture_output=True, text=True)
    ended = export()
    assert ended.returncode == 0, ended
    before = (box.folder / "x.db").read_bytes()
    ended = export()
    assert ended.returncode == 2 and "x.db" in ended.stderr, ended
    assert (box.folder / "x.db").read_bytes() == before
    url = f"sqlite:///{box.folder}/x.db"
    check_storage(box, url)
    check_dashboard(box, url)
    # Real tables: Optuna may go on with it.
    study = optuna.load_study(study_name="small", storage=url)
    done = len(study.trials)
    study.optimize(lambda trial: trial.suggest_float("lr", 1e-4, 1e-2, log=True), n_trials=2)
    assert len(study.trials) in (done + 1, done + 2)  # a waiting trial is taken up first


def main():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="tuneonce_test_") as folder:
        box = Sandbox(folder, sys.argv[1], sys.argv[2])
        make_database(box)
        before = box.database.read_bytes()
        url = f"sqlite:///file:{box.database}?mode=ro&uri=true"
        check_storage(box, url)
        check_dashboard(box, url)
        assert box.database.read_bytes() == before, "a reader changed the database"
        check_export(box)
    print("ok")


if __name__ == "__main__":
    main()
