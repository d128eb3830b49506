"""A double of NeMo-RL's main since 718ee57fc: a background thread finalizes, through `_rename_checkpoint`."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class CheckpointManager:
    """Keeps `step_N` directories below one checkpoint directory."""

    def __init__(self, config):
        self.checkpoint_dir = Path(config["checkpoint_dir"])
        self.metric_name = config["metric_name"]
        self.higher_is_better = config["higher_is_better"]
        self.keep_top_k = config["keep_top_k"]
        self.save_period = config["save_period"]
        self.ft_keep_latest_k = config.get("ft_keep_latest_k")
        self.save_optimizer = config["save_optimizer"]
        self._finalize_thread = None
        self._finalize_error = None
        self._delete_executor = ThreadPoolExecutor(max_workers=1)

    def init_tmp_checkpoint(self, step, training_info, run_config=None):
        """Make `tmp_step_N` anew, for the algorithm to fill."""
        directory = self.checkpoint_dir / f"tmp_step_{step}"
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "training_info.json").write_text(json.dumps(dict(training_info)))
        return Path(os.path.abspath(directory))

    def _rename_checkpoint(self, checkpoint_path):
        source = Path(checkpoint_path)
        step = source.name.split("_")[2]
        target = source.parent / f"step_{step}"
        if target.exists():
            aside = source.parent / f"old_step_{step}"
            os.rename(target, aside)
            os.rename(source, target)
            if aside.exists():
                shutil.rmtree(aside)
        else:
            os.rename(source, target)

    def finalize_checkpoint(self, checkpoint_path):
        """The old way, which still exists: rename and prune, inline."""
        self._rename_checkpoint(checkpoint_path)
        self.remove_old_checkpoints()

    def begin_finalization(self, checkpoint_path, wait_fn=None):
        """Wait for the writers and rename on a daemon thread; prune on another."""
        self.finalize_pending()
        self._finalize_error = None

        def finalize():
            try:
                if wait_fn is not None:
                    wait_fn()
                self._rename_checkpoint(checkpoint_path)
                self._delete_executor.submit(self.remove_old_checkpoints)
            except Exception as error:  # noqa: BLE001  # the real class stores it for finalize_pending, too
                self._finalize_error = error

        self._finalize_thread = threading.Thread(target=finalize, daemon=True)
        self._finalize_thread.start()

    def finalize_pending(self):
        """Join the thread, and raise its error."""
        if self._finalize_thread is not None:
            self._finalize_thread.join()
            self._finalize_thread = None
        if self._finalize_error is not None:
            error, self._finalize_error = self._finalize_error, None
            raise RuntimeError("Background checkpoint finalization failed") from error

    def shutdown(self):
        """Finish renames and deletions."""
        self.finalize_pending()
        self._delete_executor.shutdown(wait=True)
        self._delete_executor = ThreadPoolExecutor(max_workers=1)

    def __enter__(self):
        """Nothing to do."""
        return self

    def __exit__(self, *exc):
        """Flush."""
        self.shutdown()
        return False

    def remove_old_checkpoints(self, exclude_latest=True):
        """Keep the best `keep_top_k` periodic checkpoints, and the newest `ft_keep_latest_k` checkpoints."""
        history = self._history()
        if not history or (self.keep_top_k is None and self.ft_keep_latest_k is None):
            return
        kept = {max(step for step, _, _ in history)} if exclude_latest else set()
        periodic = [item for item in history if item[0] % self.save_period == 0]
        if self.keep_top_k is None:
            kept.update(step for step, _, _ in periodic)
        else:
            if self.metric_name is None:
                periodic.sort(key=lambda item: item[0], reverse=True)
            elif self.higher_is_better:
                periodic.sort(key=lambda item: (item[2].get(self.metric_name, -float("inf")), item[0]), reverse=True)
            else:
                periodic.sort(key=lambda item: (item[2].get(self.metric_name, float("inf")), -item[0]))
            kept.update(step for step, _, _ in periodic[: self.keep_top_k])
        if self.ft_keep_latest_k is not None:
            newest = sorted((step for step, _, _ in history), reverse=True)
            kept.update(newest[: self.ft_keep_latest_k])
        for step, path, _ in history:
            if step not in kept:
                shutil.rmtree(path)

    def _history(self):
        found = []
        for path in self.checkpoint_dir.glob("step_*"):
            info = path / "training_info.json"
            if re.fullmatch(r"step_\d+", path.name) and info.exists():
                found.append((int(path.name.split("_")[1]), path, json.loads(info.read_text())))
        return found
