"""Writes README.md of this folder from the databases that run.sh made: tables.py PROGRAM FOLDER."""

import json
import math
import pathlib
import subprocess
import sys

AXES = {  # file name: what varies
    "active": "Active experts",
    "total": "Total experts",
    "granularity": "Granularity",
    "shared": "Shared experts",
    "groups": "Groups",
    "depth": "Depth",
    "width": "Width",
    "batch_duration": "Batch and duration",
    "diffusion_active": "Diffusion: active experts",
    "diffusion_total": "Diffusion: total experts",
}
RULES = ["complete-mue", "sp", "mup"]
HERE = pathlib.Path(__file__).parent


def ask(program, *words):
    done = subprocess.run([program, *words, "--format", "json"], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3, 4):  # 3, 4: a verdict
        sys.exit(f"{' '.join(words)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def rows_of(program, database):
    """One dictionary a target and rule, in the order of the study."""
    query = lambda sql: ask(program, "query", sql, "--db", database)
    fits = {row["model"]: row for row in ask(program, "fit", database)}
    losses = {row["name"]: row for row in query("SELECT name, lr, loss FROM target")}
    trials = {}
    for row in query("SELECT target, lr, loss FROM results WHERE role IN ('target', 'drift') AND loss IS NOT NULL"):
        trials.setdefault(row["target"], []).append(row)
    result = []
    for drift in ask(program, "drift", database):
        name = drift["target"].partition("@")[0]  # a copy under another rule is called NAME@rule
        best = min(trials.get(drift["target"], []), key=lambda trial: trial["loss"], default=None)
        result.append({**drift, "name": name, "fit": fits.get(drift["target"]), "best": best,
                       "lr": losses[drift["target"]]["lr"], "loss": losses[drift["target"]]["loss"]})
    return result


def is_fitted(row):
    return row["fit"] is not None and row["lr_shift"] is not None and row["verdict"] != "UNUSABLE"


def octaves(row):
    """How far the optimum lies from the prediction; from the best trial where the fit is refused."""
    if is_fitted(row):
        return row["lr_shift"]
    return math.log2(row["best"]["lr"] / row["lr"]) if row["best"] else None


def regret(row):
    if is_fitted(row):
        return row["regret"]
    return row["loss"] - row["best"]["loss"] if row["best"] and row["loss"] is not None else None


def table(head, rows):
    return "\n".join(["| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows]]) + "\n"


def axis_table(rows):
    lines = []
    for row in sorted(rows, key=lambda row: RULES.index(row["rule"])):
        about = "" if is_fitted(row) else "≈ "
        if is_fitted(row):
            fit = row["fit"]
            optimum = f"{fit['lr']:.2e} [{fit['lr_low']:.1e}, {fit['lr_high']:.1e}]"
            shift = f"{row['lr_shift']:+.2f} [{row['lr_shift_low']:+.2f}, {row['lr_shift_high']:+.2f}]"
            cost = f"{row['regret']:.4f} [<= {row['regret_upper']:.4f}]"
        elif row["best"]:
            optimum = f"≈ {row['best']['lr']:.2e}"
            shift, cost = f"≈ {octaves(row):+.2f}", f"≈ {regret(row):.4f}"
        else:
            optimum = shift = cost = "-"
        percent = f"{about}{100 * regret(row) / row['loss']:.2f} %" if regret(row) is not None and row["loss"] else "-"
        loss = f"{row['loss']:.4f}" if row["loss"] is not None else "diverged"
        noise = f"{row['sigma0_ratio']:.2g} / " + (f"{row['sigma0_measured']:.2g}" if row["sigma0_measured"] else "-")
        lines.append([row["name"], row["rule"], optimum, shift, cost, percent, loss, noise, row["verdict"]])
    return table(["target", "rule", "optimum LR [95 %]", "octaves from the prediction [95 %]", "regret [95 % bound]",
                  "regret", "loss at the transferred point", "sigma_0: predicted / measured", "verdict"], lines)


def mean(values):
    return sum(values) / len(values) if values else None


def summary(by_axis, axes):
    """Per rule over all targets; the comparison of losses is over targets that every rule trained."""
    lines = []
    for rule in RULES:
        rows = [row for axis in axes for row in by_axis[axis] if row["rule"] == rule]
        if not rows:
            continue
        moved = [abs(octaves(row)) for row in rows if octaves(row) is not None]
        cost = [100 * regret(row) / row["loss"] for row in rows if regret(row) is not None]
        ours = {(axis, row["name"]): row["loss"] for axis in axes for row in by_axis[axis]
                if row["rule"] == "complete-mue"}
        against = [row["loss"] - ours[axis, row["name"]] for axis in axes for row in by_axis[axis]
                   if row["rule"] == rule and row["loss"] is not None and ours.get((axis, row["name"])) is not None]
        verdicts = {}
        for row in rows:
            verdicts[row["verdict"]] = verdicts.get(row["verdict"], 0) + 1
        lines.append([rule, str(len(rows)), f"{mean(moved):.2f}", f"{max(moved):.2f}", f"{mean(cost):.2f} %",
                      f"{max(cost):.2f} %", "-" if rule == "complete-mue" else f"{mean(against):+.4f}",
                      ", ".join(f"{count} {name}" for name, count in sorted(verdicts.items()))])
    return table(["rule", "targets", "mean drift, octaves", "worst", "mean regret", "worst",
                  "loss at the transferred point minus Complete-muE's, mean", "verdicts"], lines)


def trend_table(rows):
    """How drift goes with scale along an axis; nothing where no rule has three placed optima."""
    if not rows:
        return ""
    lines = [[row["rule"], f"log2({row['axis']})", str(row["num_targets"]),
              f"{row['slope']:+.2f} [{row['slope_low']:+.2f}, {row['slope_high']:+.2f}]", f"{row['rms']:.2f}",
              f"{row['curvature_ratio_low']:.1f} to {row['curvature_ratio_high']:.1f}",
              f"{row['regret_at_largest']:.4f}"] for row in rows]
    return "\n" + table(["rule", "trend over", "targets", "drift, octaves per doubling [95 %]", "rms about the line",
                         "curvature, target over proxy", "regret at the largest"], lines)


def main():
    program, work = sys.argv[1], pathlib.Path(sys.argv[2])
    by_axis, trends, proxies, seconds, trials = {}, {}, {}, 0.0, 0
    for axis in AXES:
        database = work / f"{axis}.db"
        if not database.exists():
            continue
        rows = rows_of(program, str(database))
        if not rows:
            continue
        by_axis[axis] = rows
        trends[axis] = ask(program, "drift", "--trend", str(database))
        spent = ask(program, "query", "SELECT sum(seconds) AS s, count(*) AS n FROM results WHERE role IN "
                    "('target', 'drift')", "--db", str(database))[0]
        seconds += spent["s"] or 0
        trials += spent["n"]
    for database in sorted(work.glob("proxy_*.db")):
        proxies[database.stem.removeprefix("proxy_")] = ask(program, "fit", str(database))
        spent = ask(program, "query", "SELECT sum(seconds) AS s, count(*) AS n FROM results", "--db", str(database))[0]
        seconds += spent["s"] or 0
        trials += spent["n"]

    text = (HERE / "about.md").read_text()
    text += "\n## Summary\n\n"
    text += f"{trials} trials, {seconds / 3600:.1f} hours of training on CPU cores.\n\n"
    text += "All axes:\n\n" + summary(by_axis, list(by_axis))
    text += "\nThe dense proxies:\n\n" + table(
        ["data", "optimum LR [95 %]", "optimum WD [95 %]", "initial std", "best loss", "trials"],
        [[name, f"{fit['lr']:.2e} [{fit['lr_low']:.1e}, {fit['lr_high']:.1e}]",
          f"{fit['wd']:.2g} [{fit['wd_low']:.2g}, {fit['wd_high']:.2g}]", f"{fit['init_std']:g}", f"{fit['loss']:.4f}",
          str(fit["num_points"])] for name, rows in proxies.items() for fit in rows[:1]])
    for axis, rows in by_axis.items():
        text += f"\n## {AXES[axis]}\n\n`{axis}.toml`\n\n{axis_table(rows)}\n![LR curves]({axis}.svg)\n\n"
        text += summary(by_axis, [axis]) + trend_table(trends[axis])
    (HERE / "README.md").write_text(text)


main()
