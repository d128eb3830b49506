"""Step 2, place: find the job that this launcher belongs to. Each answer belongs to one identity.

The identity may be the scheduler's, which is the same on every node and after a restart. Otherwise it is that of a
process, which only launchers with the same process or parent share.
"""

from __future__ import annotations

import json
import os
import re

from nemotron_exec.frozen import dataclass, field, replace
from nemotron_exec.place.launchers import in_mpirun
from nemotron_exec.sitecustomize.payload.sha256 import sha256

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from nemotron_exec.command.words import Command
    from nemotron_exec.place.rank import Place

__all__ = ["ENVIRONMENT", "JobIdentity", "ProcessIdentity", "identify"]

ENVIRONMENT = ("SLURM_JOB_ID", "SKYPILOT_TASK_ID", "DSTACK_RUN_ID")
"""Variables that the hand-off records. A process where one of them differs ignores the hand-off (design ruling 19)."""


@dataclass(frozen=True)
class ProcessIdentity:
    """This launcher process, by its numbers in the kernel.

    Attributes:
        machine: Boot id of the kernel, and the PID namespace. A PID is unique only within both.
        pid: Process id; kept through exec.
        started: Start time in clock ticks since boot.
        parent: Process id of the parent.
        parent_started: Start time of the parent; 0 if it cannot be seen.
    """

    machine: str
    pid: int
    started: int
    parent: int
    parent_started: int

    @classmethod
    def current(cls) -> ProcessIdentity:
        """The calling process."""
        pid, parent = os.getpid(), os.getppid()
        return cls(_machine(), pid, _started(pid), parent, _started(parent))


@dataclass(frozen=True)
class JobIdentity:
    """The identity of a job, to which answers belong.

    Attributes:
        id: The identity, for people and as a key.
        source: The variable or argument that gave the identity.
        shared: Whether it may be a key in a directory that several nodes share.
        lasting: Whether an earlier launcher with this identity belongs to the same job, before a restart. If false, it
            was another run under the same parent process.
        started: When the scheduler started this life of the job. None if it does not say, or if the job's launchers may
            have started at different times. Slurm uses a job id again, but never with the same start time.
        environment: The variables of `ENVIRONMENT` that were present.
        step: Slurm's step, with which `id` ends; empty where there is none. It only separates steps that run at the
            same time.
    """

    id: str
    source: str
    shared: bool
    lasting: bool = True
    started: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    step: str = ""

    @property
    def job(self) -> str:
        """The identity without the step. It stays the same after a requeue and for the next step of the script."""
        return self.id.removesuffix(f".{self.step}") if self.step else self.id

    @property
    def directory(self) -> str:
        """A directory name for the job's files: readable, and unique for the job."""
        job = self.job
        if not self.shared:
            # In the readable part show only the process id. The digest covers machine, namespace and start as well.
            job = re.sub(r"-[^-]+-\d+-(\d+)-\d+\Z", r"-\1", job)
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", job)[:80].strip(".") or "job"
        return f"{readable}-{sha256(self.job.encode()).hexdigest()[:12]}"


def identify(
    environ: Mapping[str, str],
    command: Command,
    place: Place,
    *,
    explicit: str | None,
    nemo_run: str | None,
    process: ProcessIdentity,
) -> JobIdentity:
    """The identity of this launcher's job.

    Args:
        environ: The environment.
        command: The wrapped command, read.
        place: The place of this process.
        explicit: `--job-id`.
        nemo_run: The host's name of the directory that is mounted or linked at `/nemo_run`; None where there is none.
        process: This process.
    """
    found = _scheduled(environ, command, explicit, nemo_run) or _launched(environ, command, place, process)
    present = {name: environ[name] for name in ENVIRONMENT if environ.get(name)}
    # Write bytes that are no UTF-8 as `\\xff`, in messages, digests and files.
    readable = found.id.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return replace(found, id=readable, environment=present)


def _scheduled(
    environ: Mapping[str, str], command: Command, explicit: str | None, nemo_run: str | None
) -> JobIdentity | None:
    if explicit:
        return JobIdentity(explicit, "--job-id", shared=True)
    if slurm := environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID"):
        return _slurm(environ, command, slurm)
    # A SkyPilot task keeps its id through all recoveries, and a dstack run id outlives a submission.
    for name in ("SKYPILOT_TASK_ID", "DSTACK_RUN_ID"):
        if value := environ.get(name):
            return JobIdentity(value, name, shared=True)
    if value := _ray_submission(environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")):
        return JobIdentity(f"ray-{value}", "Ray's submission id", shared=True)
    if value := environ.get("TORCHX_JOB_ID"):
        return JobIdentity(f"torchx-{value}", "TORCHX_JOB_ID", shared=True)
    if nemo_run:
        # All stages of a pipeline have the same NEMO_EXPERIMENT_ID. The directory belongs to one job.
        digest = sha256(nemo_run.encode()).hexdigest()[:16]
        name = environ.get("NEMO_EXPERIMENT_ID") or os.path.basename(nemo_run.rstrip("/"))
        source = "NEMO_EXPERIMENT_ID and /nemo_run" if environ.get("NEMO_EXPERIMENT_ID") else "/nemo_run"
        return JobIdentity(f"nemo-{name}-{digest}", source, shared=True)
    for name in ("PMIX_NAMESPACE", "OMPI_MCA_orte_hnp_uri"):
        if value := environ.get(name):
            return JobIdentity(f"mpi-{sha256(value.encode()).hexdigest()[:16]}", name, shared=True)
    return None


def _slurm(environ: Mapping[str, str], command: Command, job: str) -> JobIdentity:
    # Two clusters on one file system number their jobs independently.
    cluster = environ.get("SLURM_CLUSTER_NAME")
    prefix = f"slurm-{cluster}-" if cluster else "slurm-"
    array = environ.get("SLURM_ARRAY_JOB_ID")
    if array and command.launcher is not None and command.launcher.kind == "ft_launcher":
        # For ft_launcher an array is one job, whose tasks are replacement nodes that start hours apart.
        return JobIdentity(f"{prefix}{array}", "SLURM_ARRAY_JOB_ID", shared=True)
    task = environ.get("SLURM_ARRAY_TASK_ID")
    name = f"{array}_{task}" if array and task else job
    started = environ.get("SLURM_JOB_START_TIME")
    if in_mpirun(environ):
        # The step belongs to mpirun's daemons. Ranks on the node of the batch script have no step.
        return JobIdentity(f"{prefix}{name}", "SLURM_JOB_ID", shared=True, started=started)
    step = environ.get("SLURM_STEP_ID") or environ.get("SLURM_STEPID") or "batch"
    return JobIdentity(f"{prefix}{name}.{step}", "SLURM_JOB_ID", shared=True, started=started, step=step)


def _launched(environ: Mapping[str, str], command: Command, place: Place, process: ProcessIdentity) -> JobIdentity:
    run_id = _torchrun_id(environ, command)
    label = f"torchrun-{run_id}-" if run_id else "process-"
    if "TORCHELASTIC_RUN_ID" in environ:
        # A worker shares its agent, the parent process, with its siblings on this node. The agent restarts them, too.
        return JobIdentity(
            f"{label}{process.machine}-{process.parent}-{process.parent_started}",
            "the torchrun that started this process",
            shared=False,
        )
    if not place.single:
        # A shell or mpirun has started these launchers side by side. The next run under the same shell is another job.
        return JobIdentity(
            f"{label}{process.machine}-{process.parent}-{process.parent_started}",
            "the process that started this one",
            shared=False,
            lasting=False,
        )
    return JobIdentity(
        f"{label}{process.machine}-{process.pid}-{process.started}", "this process", shared=False, lasting=False
    )


def _torchrun_id(environ: Mapping[str, str], command: Command) -> str | None:
    """The run id of torchrun, only a label. It is `none` by default, and nemo-run draws it from 1 to 10000."""
    options: Mapping[str, str] = command.launcher.options if command.launcher is not None else {}
    for value in (environ.get("TORCHELASTIC_RUN_ID"), options.get("rdzv_id"), environ.get("PET_RDZV_ID")):
        if value and value != "none":
            return value
    return None


def _ray_submission(text: str | None) -> str | None:
    # Ray writes this variable in ray/dashboard/modules/job/job_supervisor.py, _get_driver_env_vars.
    if not text:
        return None
    try:
        config: Any = json.loads(text)
        value = config["metadata"]["job_submission_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return value if isinstance(value, str) and value else None


def _machine() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            boot = file.read().strip().replace("-", "")[:16]
    except OSError:
        boot = re.sub(r"[^A-Za-z0-9.-]", "_", os.uname().nodename)
    try:
        namespace = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:
        namespace = "0"
    return f"{boot}-{namespace}"


def _started(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name may hold spaces and parentheses; starttime is field 22, the 20th after it.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
