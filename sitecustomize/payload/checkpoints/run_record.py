"""The run record describes the job that made a checkpoint: one JSON file per job, to which its checkpoints point.

The commit thread writes it at the job's first checkpoint, because git takes seconds for the state of a large tree. The
launcher's part (command, working directory, config digest) comes through the hand-off.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import socket
import subprocess
import sys

from .. import frameworks, notice
from ..paths.absolute import absolute, working_directory
from . import outbox, surroundings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..documents import RunRecord
    from .settings import Settings

SCHEMA = 1
DIRECTORY = os.path.join(".nemotron-exec", "runs")
CODE_REF_VARIABLE = "NEMOTRON_EXEC_CODE_REF"

IMAGE_VARIABLES = (
    "NEMOTRON_EXEC_IMAGE",
    "SLURM_SPANK__SLURM_SPANK_OPTION_pyxis_container_image",  # pyxis, srun --container-image
    "APPTAINER_CONTAINER",
    "SINGULARITY_CONTAINER",
)

PACKAGES = (
    "torch",
    *sorted({name for framework in frameworks.FRAMEWORKS for name in framework.packages} - {"transformers"}),
    "transformer-engine",
    "transformers",
    "ray",
    "vllm",
    "wandb",
    "omegaconf",
)

_GIT_SECONDS = 20


def path_for(config, save_dir, host_save_dir):
    """The path of this job's record on the host. None where there is no local directory for one.

    The path is known before the file is written, so that a checkpoint can name it at once.

    Args:
        config: The process's `Settings`.
        save_dir: The save directory as the job names it; absolute, or a URI.
        host_save_dir: The same as the host names it.
    """
    base = host_save_dir if "://" not in save_dir else _store(config)
    return None if base is None else os.path.join(base, DIRECTORY, file_name(config))


def file_name(config):
    """`job-ID.json`, the same in all processes of a job; without a job identity one for each process."""
    job = config.job or "%s-%d" % (socket.gethostname(), os.getpid())
    safe = re.sub(r"[^A-Za-z0-9._\-]+", "-", job).strip("-.")[:80]
    # Two job identities that differ only in replaced characters must not share one file.
    return "job-%s-%s.json" % (safe, hashlib.sha256(job.encode("utf-8", "replace")).hexdigest()[:8])


def write_once(config, entry):
    """Write the record for a checkpoint's save directory, unless some process of this job has. Slow; never raises."""
    save_dir = entry["save_dir"]
    base = save_dir if "://" not in save_dir else _store(config)
    if base is None or not os.path.isdir(base):
        return
    path = os.path.join(base, DIRECTORY, file_name(config))
    if os.path.exists(path):
        return
    if outbox.linked(os.path.dirname(path)):
        return  # writing the checkpoint's outbox entry has reported the link
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = "%s.%d.tmp" % (path, os.getpid())
        outbox.write_durably(temporary, json.dumps(collect(config), indent=1, default=str))
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:
            os.rename(temporary, path)
            return
        os.unlink(temporary)
    except OSError as error:
        notice.debug("no run record in %s: %s" % (base, error))


def collect(config: Settings, environ: Mapping[str, str] = os.environ) -> RunRecord:
    """The content of the record."""
    data = config.handoff
    record = _launchers_part(data)
    record.setdefault("command", _command())
    record.setdefault("cwd", working_directory())
    record.setdefault("config", [_digested(one) for one in data.get("config") or ()])
    record.update(
        schema=SCHEMA,
        created_at=datetime.datetime.now(datetime.timezone.utc).isoformat(),
        nemotron_exec=environ.get("NEMOTRON_EXEC_ACTIVE") or data.get("version"),
        job=config.job or None,
        host=socket.gethostname(),
        artifacts=[
            {key: one.get(key) for key in ("key", "reference", "qualified_name", "path", "digest")}
            for one in data.get("artifacts") or ()
        ],
        code=code_state(environ),
        image=image(environ),
        python=sys.version.split()[0],
        versions=versions(),
        packages=surroundings.packages(),
        scheduler=surroundings.scheduler(environ),
        gpus=surroundings.gpus(),
    )
    collected: RunRecord = record
    return collected


def code_state(environ=os.environ, directory=None):
    """The state of the running code: `{"ref", "commit", "dirty", "root"}`; `NEMOTRON_EXEC_CODE_REF` wins as `ref`."""
    state = {"ref": environ.get(CODE_REF_VARIABLE) or None, "commit": None, "dirty": None, "root": None}
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    for place in [directory] if directory else [main and os.path.dirname(absolute(main)), working_directory()]:
        root = _git(place, "rev-parse", "--show-toplevel") if place else None
        if root is None:
            continue
        commit = _git(place, "rev-parse", "HEAD")
        changes = _git(place, "status", "--porcelain", "--untracked-files=no")
        state.update(root=root, commit=commit, dirty=None if changes is None else bool(changes))
        if changes:
            # Do not run the diff programs of the repository's configuration.
            text = _git(root, "diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD")
            state["diff"] = surroundings.diff(text, environ)
        break
    state["ref"] = state["ref"] or state["commit"]
    return state


def image(environ=os.environ):
    """The container image that the environment names, or None."""
    for name in IMAGE_VARIABLES:
        if environ.get(name):
            return environ[name]
    return None


def versions():
    """Versions of the relevant packages that are installed here."""
    import importlib.metadata

    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except Exception as error:
            notice.debug("no version of %s: %r" % (name, error))
    return found


def _launchers_part(data):
    """The launcher's part of the record: from a file beside the hand-off, or from a hand-off that came by value."""
    try:
        with open(data.get("run_record") or "", encoding="utf-8") as stream:
            part = json.load(stream)
    except (OSError, ValueError):
        part = data.get("launched")
    return dict(part) if isinstance(part, dict) else {}


def _command():
    command = getattr(sys, "orig_argv", None)  # Python 3.10 and later
    return notice.redact_command(command or [sys.executable] + sys.argv)


def _digested(config):
    """An entry of the hand-off's `config` with the digests of those of its files that can be read here."""
    digests = {}
    for key in ("original", "resolved"):
        try:
            with open(config[key], "rb") as stream:
                digests[key + "_sha256"] = hashlib.sha256(stream.read()).hexdigest()
        except (OSError, KeyError, TypeError):
            continue
    return dict(config, **digests)


def _git(directory, *arguments):
    # Allow a tree of another user (containers): its code runs in this process anyway. Start no monitor program of the
    # repository only to read its state.
    command = ["git", "-C", directory, "-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
    try:
        done = subprocess.run(
            command + list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_GIT_SECONDS,
            env=dict(os.environ, GIT_OPTIONAL_LOCKS="0", LC_ALL="C"),
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


def _store(config):
    return config.store if config.store and "://" not in config.store else None
