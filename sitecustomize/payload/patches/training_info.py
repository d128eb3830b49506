"""NeMo-RL's `training_info.json`: the metrics of a checkpoint, and which checkpoint is the best one.

The file lies in every `step_N` since NeMo-RL 0.2 and holds the metrics flat, beside counters: `val:accuracy` and
`train:loss` since 0.4, `val_reward` before.
"""

from __future__ import annotations

import json
import os
import re

FILE = "training_info.json"
_STEP = re.compile(r"step_(\d+)\Z")


def read(step_dir):
    """The scalars of one checkpoint's training_info.json; {} without a readable file."""
    try:
        with open(os.path.join(step_dir, FILE), encoding="utf-8") as stream:
            info = json.load(stream)
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in info.items() if _is_number(value)} if isinstance(info, dict) else {}


def metrics(info, metric_name=None):
    """The measurements in `info`: names with a split (`val:`, `train:`, `val_`, `train_`), and `metric_name`."""
    return {
        name: value
        for name, value in info.items()
        if name == metric_name or name.startswith(("val:", "train:", "val_", "train_"))
    }


def steps(checkpoint_dir):
    """The completed checkpoints of one directory, as `{step: directory}`."""
    try:
        names = os.listdir(checkpoint_dir)
    except OSError:
        return {}
    found = {}
    for name in names:
        match = _STEP.match(name)
        if match:
            found[int(match.group(1))] = os.path.join(checkpoint_dir, name)
    return found


def best_step(infos, metric_name, higher_is_better):
    """The step with the best metric among `{step: info}`, or None where none has it.

    Ties go to the later step, as `CheckpointManager.remove_old_checkpoints` (every version) and
    `get_best_checkpoint_path` (main) break them. A metric that is not a number (NaN) never wins.
    """
    if not metric_name:
        return None
    having = [(info[metric_name], step) for step, info in infos.items() if metric_name in info]
    having = [(value, step) for value, step in having if value == value]
    if not having:
        return None
    sign = 1 if higher_is_better else -1
    return max(having, key=lambda pair: (sign * pair[0], pair[1]))[1]


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
