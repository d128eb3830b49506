"""The place of a process: one row for every launcher, with the environment of its documentation or source."""

from __future__ import annotations

import shlex

import pytest

from nemotron_exec.command.read import read
from nemotron_exec.place.rank import Place, place

TRAIN = "torchrun --nproc-per-node 8 train.py cfg.yaml"
TWO = "torchrun --nnodes 2 --nproc-per-node 8 train.py cfg.yaml"
PYTHON = "python train.py cfg.yaml"
NOTHING = "no launcher's variables"
ONE = "torchrun's default of one node"

SRUN = {  # srun -N4 --ntasks-per-node=1
    "SLURM_JOB_ID": "4242",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "2",
    "SLURM_NODEID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NTASKS": "4",
    "SLURM_NNODES": "4",
    "SLURM_STEP_NUM_NODES": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_TASKS_PER_NODE": "1(x4)",
}
SBATCH = {  # the batch script, on the first of four nodes
    "SLURM_JOB_ID": "4242",
    "SLURM_PROCID": "0",
    "SLURM_NODEID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NTASKS": "4",
    "SLURM_NNODES": "4",
    "SLURM_TASKS_PER_NODE": "1(x4)",
}
ENROOT_HOOK = {"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
TORCHRUN_WORKER = {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "RANK": "11",
    "WORLD_SIZE": "16",
    "LOCAL_RANK": "3",
    "LOCAL_WORLD_SIZE": "8",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
}
TRAINJOB = {
    "PET_NNODES": "3",
    "PET_NPROC_PER_NODE": "auto",
    "PET_NODE_RANK": "1",
    "PET_MASTER_ADDR": "job-node-0-0.job",
    "PET_MASTER_PORT": "29400",
    "JOB_COMPLETION_INDEX": "1",
}
PYTORCHJOB = {  # RANK is the number of the pod, WORLD_SIZE is pods x processes
    "PET_NODE_RANK": "1",
    "PET_NNODES": "2",
    "PET_NPROC_PER_NODE": "8",
    "RANK": "1",
    "WORLD_SIZE": "16",
    "MASTER_ADDR": "job-master-0",
    "MASTER_PORT": "23456",
}
PYTORCHJOB_ELASTIC = {
    "PET_RDZV_BACKEND": "c10d",
    "PET_RDZV_ENDPOINT": "job-worker-0:23456",
    "PET_NNODES": "1:4",
    "PET_MAX_RESTARTS": "100",
}
SKYPILOT = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "8"}
DSTACK = {"DSTACK_NODE_RANK": "1", "DSTACK_NODES_NUM": "2", "DSTACK_GPUS_PER_NODE": "8"}
OMPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "OMPI_COMM_WORLD_NODE_RANK": "1",
    "PMIX_RANK": "5",
}
# The variables that srun sets for mpirun's daemon, with those of a batch script.
DAEMON = {
    "SLURM_JOB_ID": "4242",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NNODES": "3",
    "SLURM_STEP_NUM_NODES": "3",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
}
BATCH = {"SLURM_JOB_ID": "4242", "SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "8", "SLURM_NNODES": "4"}
HYDRA = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
FT = "ft_launcher --nnodes 4:4 --nproc-per-node 8 --ft-cfg-path ft.yaml train.py cfg.yaml"
FT_RANGE = "ft_launcher --nnodes 4:6 --nproc-per-node 8 train.py cfg.yaml"

# (index, count, node, nodes, source)
TABLE = {
    "none": ({}, PYTHON, (0, 1, 0, 1, NOTHING)),
    "none, torchrun on one machine": ({}, TRAIN, (0, 1, 0, 1, ONE)),
    "torchrun with a number of nodes that cannot be read": ({}, "torchrun --nnodes=x train.py", (0, 1, 0, 1, NOTHING)),
    "torchrun --standalone": ({}, "torchrun --standalone train.py", (0, 1, 0, 1, "--standalone")),
    "torchrun, static rendezvous": ({}, TWO.replace("torchrun", "torchrun --node-rank 1"), (1, 2, 1, 2, "--node-rank")),
    "torchrun, underscores": (
        {},
        "torchrun --nnodes=2 --node_rank=1 --master_addr=a train.py",
        (1, 2, 1, 2, "--node-rank"),
    ),
    "python -m torch.distributed.run": (
        {},
        "python -m torch.distributed.run --nnodes=2 --node_rank=1 train.py",
        (1, 2, 1, 2, "--node-rank"),
    ),
    "torchrun, elastic, no rank anywhere": (
        {},
        "torchrun --nnodes 1:4 --rdzv-backend c10d --rdzv-endpoint h:1 train.py",
        (None, None, None, None, "--nnodes"),
    ),
    "torchrun, c10d, fixed number, no rank": (
        {},
        TWO.replace("--nnodes 2", "--nnodes 2 --rdzv-backend c10d --rdzv-endpoint h:1"),
        (None, 2, None, 2, "--nnodes"),
    ),
    "torchrun, a variable that nobody expanded": (
        {},
        "torchrun --nnodes 2 '--node-rank=$NODE_RANK' train.py",
        (None, 2, None, 2, "--nnodes"),
    ),
    "a torchrun worker": (TORCHRUN_WORKER, PYTHON, (11, 16, 1, 2, "RANK of torchrun")),
    "a torchrun worker under srun": ({**SRUN, **TORCHRUN_WORKER}, PYTHON, (11, 16, 1, 2, "RANK of torchrun")),
    "docker, torchrun's own arguments": ({"HOSTNAME": "3f2a"}, TRAIN, (0, 1, 0, 1, ONE)),
    "docker, PET variables by -e": (
        {"PET_NNODES": "2", "PET_NODE_RANK": "1"},
        TRAIN,
        (1, 2, 1, 2, "PET_NODE_RANK"),
    ),
    "docker, the image's own entrypoint before torchrun": (
        {"PET_NNODES": "2", "PET_NODE_RANK": "1"},
        "/opt/nvidia/nvidia_entrypoint.sh " + TRAIN,
        (1, 2, 1, 2, "PET_NODE_RANK"),
    ),
    "srun with pyxis, arguments from Slurm": (
        SRUN,
        "torchrun --nnodes 4 --node-rank 2 train.py",
        (2, 4, 2, 4, "--node-rank"),
    ),
    "srun with pyxis, c10d": (
        SRUN,
        "torchrun --nnodes 4 --rdzv-backend c10d --rdzv-endpoint h:1 train.py",
        (2, 4, 2, 4, "SLURM_PROCID"),
    ),
    "srun with pyxis, elastic": (
        SRUN,
        "torchrun --nnodes 2:4 --rdzv-backend c10d --rdzv-endpoint h:1 train.py",
        (2, 4, 2, 4, "SLURM_PROCID"),
    ),
    "srun with pyxis, torchrun that says nothing of nodes": (SRUN, TRAIN, (2, 4, 2, 4, "SLURM_PROCID")),
    "srun, one task per GPU": (
        {
            **SRUN,
            "SLURM_PROCID": "11",
            "SLURM_NODEID": "1",
            "SLURM_LOCALID": "3",
            "SLURM_NTASKS": "32",
            "SLURM_STEP_NUM_TASKS": "32",
            "SLURM_TASKS_PER_NODE": "8(x4)",
        },
        PYTHON,
        (11, 32, 1, 4, "SLURM_PROCID"),
    ),
    "srun with enroot's PyTorch hook": ({**SRUN, **ENROOT_HOOK}, PYTHON, (2, 4, 2, 4, "SLURM_PROCID")),
    "srun with enroot's PyTorch hook and torchrun": ({**SRUN, **ENROOT_HOOK}, TRAIN, (2, 4, 2, 4, "SLURM_PROCID")),
    "srun --mpi=pmix": ({**SRUN, "PMIX_RANK": "2"}, PYTHON, (2, 4, 2, 4, "SLURM_PROCID")),
    "srun apptainer exec": ({**SRUN, "APPTAINER_CONTAINER": "/x.sif"}, PYTHON, (2, 4, 2, 4, "SLURM_PROCID")),
    "srun, a step of one task in a job of four": (
        {
            **SRUN,
            "SLURM_PROCID": "0",
            "SLURM_NODEID": "0",
            "SLURM_STEP_NUM_TASKS": "1",
            "SLURM_STEP_NUM_NODES": "1",
            "SLURM_NTASKS": "1",
        },
        PYTHON,
        (0, 1, 0, 1, "SLURM_PROCID"),
    ),
    "a batch script without srun": (SBATCH, TRAIN, (0, 1, 0, 1, ONE)),
    "a batch script without srun, python": (SBATCH, PYTHON, (0, 1, 0, 1, NOTHING)),
    "a batch script whose step id is Slurm's number for it": (
        {**SBATCH, "SLURM_STEP_ID": "4294967291"},
        PYTHON,
        (0, 1, 0, 1, NOTHING),
    ),
    "the last number that Slurm gives to an ordinary step": (
        {**SBATCH, "SLURM_STEP_ID": "4294967279"},
        TRAIN,
        (0, 4, 0, 4, "SLURM_PROCID"),
    ),
    "Kubeflow Trainer v2": (TRAINJOB, "torchrun train.py cfg.yaml", (1, 3, 1, 3, "PET_NODE_RANK")),
    "Kubeflow Trainer v2, one node": (
        {**TRAINJOB, "PET_NNODES": "1", "PET_NODE_RANK": "0", "JOB_COMPLETION_INDEX": "0"},
        "torchrun train.py",
        (0, 1, 0, 1, "PET_NNODES"),
    ),
    "PyTorchJob, master and workers": (PYTORCHJOB, "torchrun train.py", (1, 2, 1, 2, "PET_NODE_RANK")),
    "PyTorchJob, one pod of eight processes": (
        {"RANK": "0", "WORLD_SIZE": "8", "MASTER_ADDR": "localhost"},
        TRAIN,
        (0, 1, 0, 1, ONE),
    ),
    "PyTorchJob, old, rank only in RANK": (
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "m"},
        TWO,
        (1, 2, 1, 2, "RANK"),
    ),
    "PyTorchJob, elastic": (PYTORCHJOB_ELASTIC, "torchrun train.py", (None, None, None, None, "PET_NNODES")),
    "Ray job": ({"RAY_ADDRESS": "10.0.0.1:6379"}, "python run.py cfg.yaml", (0, 1, 0, 1, NOTHING)),
    "NeMo-RL ray.sub, main": ({"NRL_JOB_START_EPOCH": "1"}, "uv run examples/run_grpo.py", (0, 1, 0, 1, NOTHING)),
    "NeMo-RL ray.sub, v0.7.0: the head's step": (
        {
            **SRUN,
            "SLURM_PROCID": "0",
            "SLURM_NODEID": "0",
            "SLURM_NTASKS": "1",
            "SLURM_STEP_NUM_TASKS": "1",
            "SLURM_STEP_NUM_NODES": "1",
        },
        "uv run examples/run_grpo.py --config cfg.yaml",
        (0, 1, 0, 1, "SLURM_PROCID"),
    ),
    "SkyPilot": (SKYPILOT, "torchrun --nnodes=2 --node_rank=1 --master_addr=a train.py", (1, 2, 1, 2, "--node-rank")),
    "SkyPilot, no torchrun": (SKYPILOT, PYTHON, (1, 2, 1, 2, "SKYPILOT_NODE_RANK")),
    "SkyPilot, torchrun without a word of nodes": (SKYPILOT, TRAIN, (1, 2, 1, 2, "SKYPILOT_NODE_RANK")),
    "dstack": (DSTACK, "torchrun --nnodes=2 --node_rank=1 train.py", (1, 2, 1, 2, "--node-rank")),
    "dstack, no torchrun": (DSTACK, PYTHON, (1, 2, 1, 2, "DSTACK_NODE_RANK")),
    "nemo-run on Slurm, one task a node": (
        SRUN,
        "torchrun --rdzv-backend c10d --rdzv-endpoint h:1 --rdzv-id 4711 --nnodes 4 --node-rank 2 --tee 3 train.py",
        (2, 4, 2, 4, "--node-rank"),
    ),
    "nemo-run on Slurm, one launcher a worker": (
        {**SRUN, **TORCHRUN_WORKER, "TORCHELASTIC_RUN_ID": "4711"},
        PYTHON,
        (11, 16, 1, 2, "RANK of torchrun"),
    ),
    "nemo-run on Kubeflow": (TRAINJOB, TRAIN, (1, 3, 1, 3, "PET_NODE_RANK")),
    "nemo-run on Lepton": (
        {"NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
        TWO,
        (1, 2, 1, 2, "NODE_RANK"),
    ),
    "nemo-run on DGX Cloud": ({"GROUP_RANK": "1"}, TWO, (1, 2, 1, 2, "GROUP_RANK")),
    "ft_launcher": (SRUN, FT, (2, 4, 2, 4, "SLURM_PROCID")),
    "ft_launcher, hot spares": (
        {**SRUN, "SLURM_PROCID": "5", "SLURM_NODEID": "5", "SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NUM_NODES": "6"},
        FT_RANGE,
        (5, 6, 5, 6, "SLURM_PROCID"),
    ),
    "ft_launcher in an array": (
        {**SRUN, "SLURM_ARRAY_JOB_ID": "4000", "SLURM_ARRAY_TASK_ID": "3"},
        FT_RANGE,
        (14, None, 14, None, "SLURM_ARRAY_TASK_ID"),
    ),
    "ft_launcher across jobs": (
        {**SRUN, "CROSS_SLURM_PROCID": "9"},
        FT_RANGE,
        (9, None, 9, None, "CROSS_SLURM_PROCID"),
    ),
    "ft_launcher, ranks of node names": (
        {**SRUN, "NVRX_INFRA_RANK_FROM_NODENAME": "1", "SLURMD_NODENAME": "nvl72134-T01"},
        FT_RANGE,
        (2, 4, 2, 4, "SLURM_PROCID"),
    ),
    "ft_launcher, ranks of the topology": (
        {**SRUN, "SLURM_TOPOLOGY_ADDR": "block5.node3", "SLURM_TOPOLOGY_ADDR_PATTERN": "block.node"},
        FT,
        (2, 4, 2, 4, "SLURM_PROCID"),
    ),
    "ft_launcher as a module": (
        SRUN,
        "python -m nvidia_resiliency_ext.fault_tolerance.launcher --nnodes 4 train.py",
        (2, 4, 2, 4, "SLURM_PROCID"),
    ),
    "TorchX": (
        {"TORCHX_JOB_ID": "slurm://s/1", "TORCHX_RANK0_HOST": "a"},
        "torchrun --rdzv_backend c10d --rdzv_endpoint a:29500 --nnodes 2 --nproc_per_node 8 train.py",
        (None, 2, None, 2, "--nnodes"),
    ),
    "mpirun": (OMPI, PYTHON, (5, 8, None, None, "OMPI_COMM_WORLD_RANK")),
    "mpirun on one node": (
        {**OMPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "5"},
        PYTHON,
        (5, 8, 0, 1, "OMPI_COMM_WORLD_RANK"),
    ),
    "mpiexec of MPICH": (
        {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
        PYTHON,
        (3, 4, None, None, "PMI_RANK"),
    ),
    "mpirun in Slurm, on another node": ({**DAEMON, **OMPI}, PYTHON, (5, 8, None, None, "OMPI_COMM_WORLD_RANK")),
    "mpirun in Slurm, beside the batch script": (
        {**BATCH, **OMPI, "OMPI_COMM_WORLD_RANK": "1"},
        PYTHON,
        (1, 8, None, None, "OMPI_COMM_WORLD_RANK"),
    ),
    "mpirun in Slurm starts torchrun": (
        {**DAEMON, **OMPI, "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"},
        "torchrun --nnodes 4 --rdzv-backend c10d --rdzv-endpoint a:29500 train.py",
        (3, 4, None, 4, "OMPI_COMM_WORLD_RANK"),
    ),
    "mpiexec of Intel MPI or MPICH in Slurm": ({**DAEMON, **HYDRA}, PYTHON, (5, 8, None, None, "PMI_RANK")),
    "mpirun in Slurm starts ft_launcher": (
        {**DAEMON, **OMPI, "SLURM_ARRAY_TASK_ID": "2"},
        FT,
        (5, 8, None, 4, "OMPI_COMM_WORLD_RANK"),
    ),
    "srun --mpi=pmi2": ({**SRUN, "PMI_RANK": "2", "PMI_SIZE": "4"}, PYTHON, (2, 4, 2, 4, "SLURM_PROCID")),
    "PMIx alone": ({"PMIX_RANK": "3"}, PYTHON, (3, None, None, None, "PMIX_RANK")),
    "an Indexed Job with a rendezvous": ({"JOB_COMPLETION_INDEX": "1"}, TWO, (1, 2, 1, 2, "JOB_COMPLETION_INDEX")),
    "an Indexed Job of independent pods": ({"JOB_COMPLETION_INDEX": "7"}, TRAIN, (0, 1, 0, 1, ONE)),
    "bare RANK without a launcher": ({"RANK": "1", "WORLD_SIZE": "2"}, PYTHON, (1, 2, None, None, "RANK")),
    "our own variables": (
        {**SRUN, "NEMOTRON_EXEC_NODE_RANK": "0", "NEMOTRON_EXEC_NNODES": "2"},
        TRAIN,
        (0, 2, 0, 2, "NEMOTRON_EXEC_NODE_RANK"),
    ),
}


def at(environ: dict[str, str], command: str) -> Place:
    return place(environ, read(shlex.split(command)))


@pytest.mark.parametrize(("environ", "command", "expected"), TABLE.values(), ids=TABLE)
def test_place(environ, command, expected):
    found = at(environ, command)

    assert (found.index, found.count, found.node, found.nodes, found.source) == expected


def test_local_index_and_count_of_a_torchrun_worker():
    found = at(TORCHRUN_WORKER, PYTHON)

    assert (found.local_index, found.local_count) == (3, 8)


@pytest.mark.parametrize(
    ("environ", "command"),
    [
        ({}, TWO.replace("torchrun", "torchrun --node-rank 1")),
        ({"PET_NODE_RANK": "1", "PET_NNODES": "2"}, TRAIN),
        ({"NODE_RANK": "1", "NNODES": "2"}, TRAIN),
        ({"GROUP_RANK": "1"}, TWO),
        ({"NEMOTRON_EXEC_NODE_RANK": "1", "NEMOTRON_EXEC_NNODES": "2"}, TRAIN),
        ({"JOB_COMPLETION_INDEX": "1"}, TWO),
    ],
    ids=["--node-rank", "PET_NODE_RANK", "NODE_RANK", "GROUP_RANK", "NEMOTRON_EXEC_NODE_RANK", "JOB_COMPLETION_INDEX"],
)
def test_a_launcher_of_each_node_is_the_first_and_only_one_of_its_node(environ, command):
    here = place(environ, read(shlex.split(command), (), environ))
    assert (here.index, here.node, here.local_index, here.local_count) == (1, 1, 0, 1)


def test_local_count_under_slurm_is_that_of_this_node():
    environ = {**SRUN, "SLURM_TASKS_PER_NODE": "2(x2),1,3", "SLURM_LOCALID": "0"}

    assert at(environ, PYTHON).local_count == 1


@pytest.mark.parametrize(
    ("environ", "attempt"),
    [({}, 0), ({"SLURM_RESTART_COUNT": "2"}, 2), ({**TORCHRUN_WORKER, "TORCHELASTIC_RESTART_COUNT": "1"}, 1)],
)
def test_attempt(environ, attempt):
    assert at(environ, PYTHON).attempt == attempt


def test_a_worker_and_a_launcher_of_one_node_know_that_there_is_one():
    assert not at({**TORCHRUN_WORKER, "GROUP_WORLD_SIZE": "1", "GROUP_RANK": "0"}, PYTHON).several_nodes
    assert at(TORCHRUN_WORKER, PYTHON).several_nodes
    assert not at({}, TRAIN).several_nodes


def test_contradictions_name_both_sources_and_who_decides():
    found = at({**SRUN, "SLURM_NODEID": "1", "SLURM_PROCID": "1"}, "torchrun --nnodes 4 --node-rank 0 train.py")

    assert found.contradictions == ("--node-rank says node 0, SLURM_PROCID says node 1: --node-rank decides",)


def test_a_pod_that_is_not_the_first_of_a_torchrun_without_nodes_is_named():
    # Each such torchrun would start a training of its own.
    for variable in ("RANK", "GROUP_RANK"):
        (said,) = at({variable: "1", "MASTER_ADDR": "m"}, TRAIN).contradictions
        assert f"{variable} says node 1" in said
        assert at({variable: "0", "MASTER_ADDR": "m"}, TRAIN).contradictions == ()


def test_sources_that_agree_contradict_nothing():
    assert at(SRUN, "torchrun --nnodes 4 --node-rank 2 train.py").contradictions == ()
    assert at({**SRUN, **ENROOT_HOOK}, TRAIN).contradictions == ()
    assert at(PYTORCHJOB, "torchrun train.py").contradictions == ()
