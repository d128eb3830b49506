"""Every Python that a job might start here, and whether the injector reaches it: asked by starting each."""

from __future__ import annotations

import concurrent.futures
import glob
import json
import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemotron_exec.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nemotron_exec.doctor.finding import Patient

__all__ = ["check"]

_NAME = re.compile(r"python(?:\d(?:\.\d+)?)?\Z")
# Where images keep environments that are on nobody's PATH: NeMo-RL makes one a worker kind under /opt/ray_venvs.
_ELSEWHERE = ("/opt/*/bin/python", "/opt/ray_venvs/*/bin/python", "/opt/conda/envs/*/bin/python")
_SECONDS = 30.0
# Works under any Python from 2.7 on; one line on stdout, which a site of the image's may write to as well.
_PROBE = """
import json, sys
names = {}
try:
    from importlib import metadata
    for name in ("wandb", "megatron-bridge", "nemo-rl", "ddtrace", "newrelic", "opentelemetry-distro"):
        try: names[name] = metadata.version(name)
        except Exception: pass
except ImportError: pass
print("\\nDOCTOR" + json.dumps({
    "version": sys.version.split()[0],
    "prefix": sys.prefix,
    "injected": any(getattr(finder, "nemotron_exec", False) for finder in sys.meta_path),
    "packages": names,
}))
"""


@dataclass(frozen=True)
class _Answer:
    """What an interpreter said of itself; None if it could not be started."""

    path: str
    said: Mapping[str, Any] | None
    error: str = ""


def check(patient: Patient) -> Iterator[Finding]:
    """Each interpreter with its version, and the other injectors on PYTHONPATH."""
    from nemotron_exec.environment import job_environment

    yield from _others(patient.environ)
    environ = job_environment(patient.environ)
    paths = list(_found(patient))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda path: _ask(path, environ), paths))
    if not any(answer.said for answer in answers):
        yield Finding(Level.WARNING, "python", "no Python was found on PATH", "A command without Python needs none")
    first = True
    seen = set()
    for answer in answers:
        if answer.said is None:
            # Others on PATH may be shims of a version manager that are not in use.
            if answer.path in patient.words:
                yield Finding(Level.FAULT, "python", f"{answer.path} does not start: {answer.error}", "Name another")
            continue
        key = (answer.said["prefix"], answer.said["version"])
        if key not in seen:
            yield _judge(answer, answer.said, first=first)
        if first and answer.said["injected"]:
            yield from _patches(answer.path, environ)
        seen.add(key)
        first = False


def _judge(answer: _Answer, said: Mapping[str, Any], *, first: bool) -> Finding:
    about = f"{answer.path} ({said['version']}"
    about += "".join(f", {name} {version}" for name, version in said["packages"].items()) + ")"
    if said["injected"]:
        return Finding(Level.OK, "python", f"{about}: the injector runs")
    if tuple(int(part) for part in said["version"].split(".")[:2]) < (3, 8):
        return Finding(
            Level.FAULT if first else Level.WARNING,
            "python",
            f"{about}: too old for the injector",
            "Train with Python 3.8 or later; artifacts are resolved all the same",
        )
    return Finding(
        Level.FAULT if first else Level.WARNING,
        "python",
        f"{about}: the injector does not run",
        "Look for a sitecustomize or .pth file that exits, and for PYTHONPATH being set by a wrapper",
    )


# Imports what each patch hooks, as the job will, and asks the injector what has become of it.
_PATCH_PROBE = """
import importlib, json, os, sys
said = {}
for name, module in json.loads(sys.argv[1]).items():
    try:
        importlib.import_module(module)
    except BaseException as error:
        said[name] = ["waiting", "%s cannot be imported here (%s)" % (module, type(error).__name__)]
        continue
    status = sys.modules["_nemotron_exec.apply"].STATUS.get(name)
    said[name] = [status.state, status.reason] if status else ["switched off", ""]
with open(sys.argv[2], "w") as file:
    json.dump(said, file)
os._exit(0)
"""


def _patches(path: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """What becomes of each patch in the command's own interpreter."""
    import tempfile

    from nemotron_exec.patches import PATCHES

    with tempfile.TemporaryDirectory() as scratch:
        answer = os.path.join(scratch, "patches.json")
        try:
            subprocess.run(
                [path, "-c", _PATCH_PROBE, json.dumps(PATCHES), answer],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(environ),
                timeout=2 * _SECONDS, check=False,
            )  # fmt: skip
            with open(answer, encoding="utf-8") as file:
                said = json.load(file)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            yield Finding(Level.WARNING, "patches", f"not known: {error}", "Import the frameworks by hand to see why")
            return
    for name, (state, reason) in said.items():
        level = (
            Level.WARNING if state == "stood down" and name in ("lineage", "megatron-bridge", "nemo-rl") else Level.OK
        )
        remedy = "Its framework has changed; look for a newer nemotron-exec" if level is Level.WARNING else ""
        yield Finding(level, "patch", f"{name} {state}: {reason}" if reason else f"{name} {state}", remedy)


def _found(patient: Patient) -> Iterator[str]:
    """The command's own interpreter first, then those on PATH, then those of environments elsewhere."""
    import shutil

    search = patient.environ.get("PATH", os.defpath)
    candidates = [word for word in patient.words if _NAME.match(os.path.basename(word))][:1]
    candidates += ["python", "python3"]
    paths = [path for path in (shutil.which(name, path=search) for name in candidates) if path]
    for folder in search.split(os.pathsep):
        paths += sorted(path for path in glob.glob(os.path.join(glob.escape(folder), "python*")) if _is_python(path))
    for pattern in _ELSEWHERE:
        paths += sorted(glob.glob(pattern))
    ours = "/opt/nemotron-exec/"
    seen = set()
    for path in paths:
        # A virtual environment's python is a link to another's: what tells them apart is where the link lies.
        key = (os.path.realpath(os.path.dirname(path)), os.path.realpath(path))
        if key not in seen and not path.startswith(ours):
            seen.add(key)
            yield path


def _is_python(path: str) -> bool:
    return bool(_NAME.match(os.path.basename(path))) and os.access(path, os.X_OK)


def _ask(path: str, environ: Mapping[str, str]) -> _Answer:
    try:
        done = subprocess.run(
            [path, "-c", _PROBE], capture_output=True, text=True, env=dict(environ), timeout=_SECONDS, errors="replace",
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return _Answer(path, None, str(error))
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("DOCTOR"):
            return _Answer(path, json.loads(line[len("DOCTOR") :]))
    return _Answer(path, None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])


def _others(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Other programs' sitecustomize on PYTHONPATH: ours runs first, then theirs."""
    from nemotron_exec.environment import injector_directory

    for entry in environ.get("PYTHONPATH", "").split(os.pathsep):
        if not entry or os.path.realpath(entry) == os.path.realpath(injector_directory()):
            continue
        if any(glob.glob(os.path.join(glob.escape(entry), name)) for name in ("sitecustomize.py*", "sitecustomize/")):
            yield Finding(Level.OK, "python", f"{entry} on PYTHONPATH has a sitecustomize, which runs after ours")
