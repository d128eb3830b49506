"""The job's identity is the same on all nodes and after a restart, and differs between jobs."""

from __future__ import annotations

import json
import shlex
from functools import partial
from hashlib import sha256

import pytest

from nemotron_exec.command.read import read
from nemotron_exec.place import job
from nemotron_exec.place.job import JobIdentity, ProcessIdentity, identify
from nemotron_exec.place.rank import place

PROCESS = ProcessIdentity("boot-1", 100, 5000, 99, 4000)
SLURM = {"SLURM_JOB_ID": "4242", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
RAY = json.dumps({"metadata": {"job_submission_id": "raysubmit_1"}})


def of(environ=None, command="python train.py", explicit=None, nemo_run=None, process=PROCESS) -> JobIdentity:
    environ = environ or {}
    words = read(shlex.split(command))
    here = place(environ, words)
    return identify(environ, words, here, explicit=explicit, nemo_run=nemo_run, process=process)


TABLE = {
    "--job-id": ({**SLURM}, {"explicit": "mine"}, "mine", "--job-id"),
    "Slurm step": (SLURM, {}, "slurm-4242.0", "SLURM_JOB_ID"),
    "Slurm, older name": ({"SLURM_JOBID": "4242", "SLURM_STEPID": "1"}, {}, "slurm-4242.1", "SLURM_JOB_ID"),
    "Slurm batch script": ({"SLURM_JOB_ID": "4242"}, {}, "slurm-4242.batch", "SLURM_JOB_ID"),
    "Slurm with its cluster": ({**SLURM, "SLURM_CLUSTER_NAME": "eos"}, {}, "slurm-eos-4242.0", "SLURM_JOB_ID"),
    "Slurm array": (
        {**SLURM, "SLURM_ARRAY_JOB_ID": "4000", "SLURM_ARRAY_TASK_ID": "7"},
        {},
        "slurm-4000_7.0",
        "SLURM_JOB_ID",
    ),
    "Slurm, an array without a task": ({**SLURM, "SLURM_ARRAY_JOB_ID": "4000"}, {}, "slurm-4242.0", "SLURM_JOB_ID"),
    "Slurm, a task without an array": ({**SLURM, "SLURM_ARRAY_TASK_ID": "7"}, {}, "slurm-4242.0", "SLURM_JOB_ID"),
    "ft_launcher in a Slurm array": (
        {**SLURM, "SLURM_ARRAY_JOB_ID": "4000", "SLURM_ARRAY_TASK_ID": "7"},
        {"command": "ft_launcher --nnodes 2:4 train.py"},
        "slurm-4000",
        "SLURM_ARRAY_JOB_ID",
    ),
    "SkyPilot": ({"SKYPILOT_TASK_ID": "sky-1"}, {}, "sky-1", "SKYPILOT_TASK_ID"),
    "dstack": ({"DSTACK_RUN_ID": "d-1", "DSTACK_JOB_ID": "j-9"}, {}, "d-1", "DSTACK_RUN_ID"),
    "Ray": ({"RAY_JOB_CONFIG_JSON_ENV_VAR": RAY}, {}, "ray-raysubmit_1", "Ray's submission id"),
    "TorchX": ({"TORCHX_JOB_ID": "local://s/app"}, {}, "torchx-local://s/app", "TORCHX_JOB_ID"),
    "mpirun in Slurm, on another node": ({**SLURM, "OMPI_COMM_WORLD_RANK": "2"}, {}, "slurm-4242", "SLURM_JOB_ID"),
    "mpirun in Slurm, beside the batch script": (
        {"SLURM_JOB_ID": "4242", "OMPI_COMM_WORLD_RANK": "0"},
        {},
        "slurm-4242",
        "SLURM_JOB_ID",
    ),
    "Hydra in a Slurm array": (
        {**SLURM, "SLURM_ARRAY_JOB_ID": "4000", "SLURM_ARRAY_TASK_ID": "7", "MPI_LOCALRANKID": "0", "PMI_RANK": "4"},
        {},
        "slurm-4000_7",
        "SLURM_JOB_ID",
    ),
    "Slurm before NEMO_EXPERIMENT_ID": (
        {**SLURM, "NEMO_EXPERIMENT_ID": "e"},
        {"nemo_run": "/lustre/e/job"},
        "slurm-4242.0",
        "SLURM_JOB_ID",
    ),
}


@pytest.mark.parametrize(("environ", "more", "expected", "source"), TABLE.values(), ids=TABLE)
def test_identity_of_the_scheduler(environ, more, expected, source):
    found = of(environ, **more)

    assert (found.id, found.source) == (expected, source)
    assert found.shared
    assert found.lasting


def test_an_experiment_id_counts_only_with_the_directory_of_its_job():
    stages = [of({"NEMO_EXPERIMENT_ID": "e"}, nemo_run=f"/lustre/e/{stage}") for stage in ("pretrain", "sft")]

    assert stages[0].id != stages[1].id
    assert stages[0].shared
    assert not of({"NEMO_EXPERIMENT_ID": "e"}).shared


def test_the_directory_of_a_job_alone_is_an_identity():
    assert of(nemo_run="/lustre/e/job").id == of(nemo_run="/lustre/e/job").id != of(nemo_run="/lustre/e/other").id


@pytest.mark.parametrize("run_id", ["none", "4711"])
def test_a_torchrun_id_is_never_a_key_in_a_shared_directory(run_id):
    command = f"torchrun --nnodes 2 --node-rank 0 --rdzv-id {run_id} train.py"

    assert not of(command=command).shared
    assert not of({"PET_RDZV_ID": run_id}, "torchrun --nnodes 2 train.py").shared
    assert not of({"TORCHELASTIC_RUN_ID": run_id, "RANK": "0", "WORLD_SIZE": "2"}).shared


def test_workers_of_one_torchrun_have_their_agent_in_common():
    environ = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "2"}
    sibling = ProcessIdentity("boot-1", 101, 5001, 99, 4000)
    other = ProcessIdentity("boot-1", 101, 5001, 98, 3999)

    assert of(environ).id == of(environ, process=sibling).id != of(environ, process=other).id


def test_launchers_side_by_side_are_one_job_and_the_next_under_the_same_shell_is_no_restart_of_it():
    first, second = of({"RANK": "0", "WORLD_SIZE": "2"}), of({"RANK": "1", "WORLD_SIZE": "2"})

    assert first.id == second.id
    assert not first.lasting
    # Torchrun's agent restarts its workers.
    assert of({"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "2"}).lasting


def test_a_launcher_alone_is_its_own_job():
    later = ProcessIdentity("boot-1", 100, 9000, 99, 4000)

    assert of().id != of(process=later).id
    assert not of().lasting  # no launcher restarts this process
    assert of().id != of(process=ProcessIdentity("boot-2", 100, 5000, 99, 4000)).id


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"metadata": 3}', '{"metadata": {"job_submission_id": 3}}', "[" * 100_000]
)
def test_a_ray_variable_that_says_nothing_is_passed_over(text):
    assert of({"RAY_JOB_CONFIG_JSON_ENV_VAR": text}).source == "this process"


def test_names_of_directories_are_safe_and_different():
    names = {of(explicit=text).directory for text in ("../../etc", "a/b", "a_b", ".", "ä", "a" * 500, "a" * 501)}

    assert len(names) == 7
    assert all("/" not in name and not name.startswith(".") and len(name) < 120 for name in names)


def test_variables_that_the_hand_off_is_checked_against_are_kept():
    assert of({**SLURM, "DSTACK_RUN_ID": ""}).environment == {"SLURM_JOB_ID": "4242"}


def test_the_current_process():
    import os

    found = ProcessIdentity.current()

    assert (found.pid, found.parent) == (os.getpid(), os.getppid())
    assert found.started > 0
    assert found == ProcessIdentity.current()


# `/nemo_run`, and the variables of mpirun: the text is hashed, and long enough to be one job's.
NAMES = [
    (
        partial(of, {"NEMO_EXPERIMENT_ID": "exp"}, nemo_run="/l/e/job/"),
        f"nemo-exp-{sha256(b'/l/e/job/').hexdigest()[:16]}",
        "NEMO_EXPERIMENT_ID and /nemo_run",
    ),
    (partial(of, nemo_run="/l/e/job/"), f"nemo-job-{sha256(b'/l/e/job/').hexdigest()[:16]}", "/nemo_run"),
    (partial(of, {"PMIX_NAMESPACE": "ns"}), f"mpi-{sha256(b'ns').hexdigest()[:16]}", "PMIX_NAMESPACE"),
    (partial(of, {"OMPI_MCA_orte_hnp_uri": "ns"}), f"mpi-{sha256(b'ns').hexdigest()[:16]}", "OMPI_MCA_orte_hnp_uri"),
    (
        partial(of, {"PMIX_NAMESPACE": "ns", "OMPI_MCA_orte_hnp_uri": "other"}),
        f"mpi-{sha256(b'ns').hexdigest()[:16]}",
        "PMIX_NAMESPACE",
    ),
    (partial(of), "process-boot-1-100-5000", "this process"),
    (partial(of, command="torchrun --rdzv-id r t.py"), "torchrun-r-boot-1-100-5000", "this process"),
    (partial(of, {"PET_RDZV_ID": "p"}), "torchrun-p-boot-1-100-5000", "this process"),
    (partial(of, {"PET_RDZV_ID": "p"}, "torchrun --rdzv-id r t.py"), "torchrun-r-boot-1-100-5000", "this process"),
    (
        partial(of, {"TORCHELASTIC_RUN_ID": "e"}, "torchrun --rdzv-id r t.py"),
        "torchrun-e-boot-1-99-4000",
        "the torchrun that started this process",
    ),
    (partial(of, {"TORCHELASTIC_RUN_ID": "none"}), "process-boot-1-99-4000", "the torchrun that started this process"),
    (partial(of, {"RANK": "0", "WORLD_SIZE": "2"}), "process-boot-1-99-4000", "the process that started this one"),
    (partial(of, {"SLURM_JOB_ID": "\udcff"}), "slurm-\\xff.batch", "SLURM_JOB_ID"),
]


@pytest.mark.parametrize(("found", "expected", "source"), NAMES)
def test_the_whole_identity(found, expected, source):
    assert (found().id, found().source) == (expected, source)
    assert found().shared is not expected.startswith(("process-", "torchrun-"))


@pytest.mark.parametrize(
    ("command", "array"), [("ft_launcher t.py", True), ("torchrun t.py", False), ("python t.py", False)]
)
def test_only_for_ft_launcher_an_array_is_one_job(command, array):
    environ = {**SLURM, "SLURM_ARRAY_JOB_ID": "4000", "SLURM_ARRAY_TASK_ID": "7", "SLURM_JOB_START_TIME": "9"}
    found = of(environ, command)
    assert found.id == ("slurm-4000" if array else "slurm-4000_7.0")
    assert (found.started, found.step) == ((None, "") if array else ("9", "0"))
    assert (found.job, found.lasting) == ("slurm-4000" if array else "slurm-4000_7", True)


def test_a_step_of_mpirun_is_no_step_of_the_job():
    found = of({**SLURM, "OMPI_COMM_WORLD_RANK": "1", "SLURM_JOB_START_TIME": "9"})
    assert (found.job, found.step, found.started) == ("slurm-4242", "", "9")


def test_the_name_of_a_directory_is_readable_and_ends_with_a_digest():
    digest = sha256(b"slurm-4242").hexdigest()[:12]
    assert of(SLURM).directory == f"slurm-4242-{digest}"
    digest = sha256(b"process-boot-1-100-5000").hexdigest()[:12]
    assert of().directory == f"process-100-{digest}"  # machine and start are in the digest
    machine = ProcessIdentity("boot-4026531836", 100, 5000, 99, 4000)
    assert of(process=machine).directory.startswith("process-100-")
    # Of a scheduler's id every part counts.
    assert of(explicit="a-b-1-2-3").directory.startswith("a-b-1-2-3-")
    long = of(explicit="a" * 500).directory
    assert long == "a" * 80 + "-" + sha256(b"a" * 500).hexdigest()[:12]
    assert of(explicit="..").directory.startswith("job-")


def test_the_numbers_of_a_process_are_those_of_the_kernel():
    import os
    import subprocess
    import sys

    found = ProcessIdentity.current()
    # A process's name may hold blanks and parentheses.
    script = "import ctypes,sys;ctypes.CDLL(None).prctl(15,b'a) (b 7');print(1,flush=True);sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        started = job._started(child.pid)
        child.stdin.close()
    with open("/proc/uptime") as file:
        ticks = float(file.read().split()[0]) * os.sysconf("SC_CLK_TCK")
    assert found.started <= started <= ticks
    assert found.parent_started <= found.started
    assert job._started(2**22 + 1) == 0
    boot, namespace = found.machine.split("-")
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert boot == file.read().replace("-", "")[:16]
    assert namespace == os.readlink("/proc/self/ns/pid").strip("pid:[]")


def test_where_the_kernel_says_nothing_the_machine_is_the_name_of_its_node(monkeypatch):
    import builtins
    import os

    def refuse(path, *_, **__):
        raise PermissionError(path)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "open", refuse)
        patched.setattr(os, "readlink", refuse)
        patched.setattr(os, "uname", lambda: os.uname_result(("Linux", "node_1.x-y", "", "", "")))
        found = job._machine(), job._started(os.getpid())
    assert found == ("node_1.x-y-0", 0)
