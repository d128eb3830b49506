"""A double of NeMo-RL v0.4.0 and v0.5.0: `finalize_checkpoint` renames and prunes, inline."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path


class CheckpointManager:
    """Keeps `step_N` directories below one checkpoint directory."""

    def __init__(self, config):
        self.checkpoint_dir = Path(config["checkpoint_dir"])
        self.metric_name = config["metric_name"]
        self.higher_is_better = config["higher_is_better"]
        self.keep_top_k = config["keep_top_k"]

    def init_tmp_checkpoint(self, step, training_info, run_config=None):
        """Make `tmp_step_N`, for the algorithm to fill."""
        directory = self.checkpoint_dir / f"tmp_step_{step}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "training_info.json").write_text(json.dumps(dict(training_info)))
        return Path(os.path.abspath(directory))

    def finalize_checkpoint(self, checkpoint_path):
        """Rename `tmp_step_N` to `step_N`, replacing an existing one, and prune."""
        source = Path(checkpoint_path)
        step = source.name.split("_")[2]
        target = source.parent / f"step_{step}"
        if target.exists():
            aside = source.parent / f"old_step_{step}"
            os.rename(target, aside)
            os.rename(source, target)
            shutil.rmtree(aside)
        else:
            os.rename(source, target)
        self.remove_old_checkpoints()

    def remove_old_checkpoints(self, exclude_latest=True):
        """Keep the `keep_top_k` best, and the one with the highest step."""
        if self.keep_top_k is None:
            return
        history = self._history()
        latest = max((step for step, _, _ in history), default=None)
        if self.metric_name is None:
            history.sort(key=lambda item: item[0], reverse=True)
        elif self.higher_is_better:
            history.sort(key=lambda item: (item[2].get(self.metric_name, -float("inf")), item[0]), reverse=True)
        else:
            history.sort(key=lambda item: (item[2].get(self.metric_name, float("inf")), -item[0]))
        for step, path, _ in history[self.keep_top_k :]:
            if not (exclude_latest and step == latest):
                shutil.rmtree(path)

    def _history(self):
        found = []
        for path in self.checkpoint_dir.glob("step_*"):
            info = path / "training_info.json"
            if re.fullmatch(r"step_\d+", path.name) and info.exists():
                found.append((int(path.name.split("_")[1]), path, json.loads(info.read_text())))
        return found
