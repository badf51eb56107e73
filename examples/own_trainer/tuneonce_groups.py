"""What a PyTorch trainer needs to follow tuneonce's configuration: copy this file beside your script.

    config = tuneonce_groups.load(path)                        # what tuneonce wrote: {config} or $TUNEONCE_CONFIG
    GROUPS = {"embedding": r"embed", "attention": r"attn", ...}  # tensor group -> pattern of parameter names
    tuneonce_groups.initialise(model, config, GROUPS)          # initial std of each group
    optimizer = torch.optim.AdamW(tuneonce_groups.parameter_groups(model, config, GROUPS))
    ... in step t: for g in optimizer.param_groups: g["lr"] = g["peak_lr"] * tuneonce_groups.schedule(config, t)
    tuneonce_groups.report(step=t, val_loss=loss)

The groups are embedding, attention, norm, ffn_up, ffn_down, router, expert_up, expert_down, shared_up, shared_down,
final_norm and head; config["groups"] holds those that the model has. Needs torch and nothing else.
"""
import json
import math
import os
import re

import torch


def load(path=None):
    """The configuration of this trial as a dictionary; examples/own_trainer/README.md names its keys."""
    with open(path or os.environ["TUNEONCE_CONFIG"], encoding="utf-8") as file:
        config = json.load(file)
    if config["format"] != 1:
        raise ValueError(f"configuration of format {config['format']}; this file reads 1")
    return config


def group_of(name, config, patterns):
    """The tensor group of a parameter. Every one must match the pattern of exactly one group of the model."""
    found = [group for group, pattern in patterns.items() if group in config["groups"] and re.search(pattern, name)]
    if len(found) != 1:
        raise ValueError(f"parameter {name} matches {found or 'no group'}; the model's groups are "
                         + ", ".join(config["groups"]))
    return found[0]


def initialise(model, config, patterns):
    """Normal values of the group's initial std; gains are set to 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            group = group_of(name, config, patterns)
            if group in ("norm", "final_norm"):
                parameter.fill_(1)
            else:
                parameter.normal_(0, config["groups"][group]["init_std"])


def parameter_groups(model, config, patterns):
    """One optimizer group per tensor group, with the values of the transfer table, for torch.optim.AdamW."""
    members = {}
    for name, parameter in model.named_parameters():
        members.setdefault(group_of(name, config, patterns), []).append(parameter)
    result = []
    for group, parameters in members.items():
        values = config["groups"][group]
        result.append({"params": parameters, "name": group, "lr": values["lr"], "peak_lr": values["lr"],
                       "weight_decay": values["wd"], "betas": tuple(values["betas"]), "eps": values["eps"]})
    return result


def schedule(config, step):
    """Factor on every learning rate in the update after `step` others: the study's [train] schedule."""
    kind, steps = config["schedule"]["kind"], config["steps"]
    warmup = round(config["schedule"]["warmup"] * steps)
    if step < warmup:
        return (step + 1) / warmup
    if kind == "wsd":
        decay = round(config["schedule"]["decay"] * steps)
        return min(1.0, (steps - step) / decay) if decay else 1.0
    left = (steps - step) / max(1, steps - warmup)
    return left if kind == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)


def report(**values):
    """report(step=100, val_loss=3.21): one JSON line to tuneonce's pipe, or to the output without one."""
    line = json.dumps(values)
    pipe = os.environ.get("TUNEONCE_METRICS")
    if not pipe:
        print(line, flush=True)
        return
    with open(pipe, "w", encoding="utf-8") as file:
        file.write(line + "\n")
