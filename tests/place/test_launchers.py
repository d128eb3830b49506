"""What each launcher and scheduler says about a process, to the last number."""

from __future__ import annotations

import shlex

import pytest

from nemotron_exec.command.read import read
from nemotron_exec.place import launchers
from nemotron_exec.place.launchers import Claim
from nemotron_exec.place.rank import Place, place

PYTHON, TORCHRUN, TWO, FT = "python t.py", "torchrun t.py", "torchrun --nnodes 2 t.py", "ft_launcher --nnodes 2 t.py"
STEP = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_NODEID": "1", "SLURM_LOCALID": "1"}
WORKER = {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "WORLD_SIZE": "4", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2",
          "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}  # fmt: skip
MPI = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
       "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}  # fmt: skip

#  rule, environment, command: source, index, count, node, nodes, local index, local count
CLAIMS = [
    (
        "_own",
        {"NEMOTRON_EXEC_NODE_RANK": "1", "NEMOTRON_EXEC_NNODES": "2"},
        PYTHON,
        ("NEMOTRON_EXEC_NODE_RANK", 1, 2, 1, 2, 0, 1),
    ),
    ("_own", {"NEMOTRON_EXEC_NNODES": "2"}, PYTHON, None),
    ("_torchrun_worker", WORKER, PYTHON, ("RANK of torchrun", 3, 4, 1, 2, 1, 2, True)),
    ("_torchrun_worker", {**WORKER, "RANK": ""}, PYTHON, None),
    ("_torchrun_worker", {"RANK": "3"}, PYTHON, None),
    ("_torchrun_arguments", {}, PYTHON, None),
    ("_torchrun_arguments", {}, "torchrun --standalone t.py", ("--standalone", 0, 1, 0, 1, 0, 1)),
    ("_torchrun_arguments", {"PET_STANDALONE": "1"}, TORCHRUN, ("--standalone", 0, 1, 0, 1, 0, 1)),
    (
        "_torchrun_arguments",
        {"PET_STANDALONE": "0"},
        TORCHRUN,
        ("torchrun's default of one node", 0, 1, 0, 1, 0, 1, False, True),
    ),
    (
        "_torchrun_arguments",
        {"PET_STANDALONE": ""},
        TORCHRUN,
        ("torchrun's default of one node", 0, 1, 0, 1, 0, 1, False, True),
    ),
    ("_torchrun_arguments", {}, "torchrun --nnodes 1 t.py", ("--nnodes", 0, 1, 0, 1, 0, 1)),
    ("_torchrun_arguments", {"PET_NNODES": "1"}, TORCHRUN, ("PET_NNODES", 0, 1, 0, 1, 0, 1)),
    ("_torchrun_arguments", {"PET_NNODES": "3"}, "torchrun --nnodes 2 t.py", ("--nnodes", None, 2, None, 2)),
    ("_torchrun_arguments", {}, "torchrun --nnodes 2 --node-rank 1 t.py", ("--node-rank", 1, 2, 1, 2, 0, 1)),
    ("_torchrun_arguments", {}, "torchrun --nnodes 1:4 t.py", ("--nnodes", None, None, None, None)),
    ("_torchrun_arguments", {}, "torchrun --nnodes 4:4 t.py", ("--nnodes", None, 4, None, 4)),
    ("_torchrun_arguments", {}, "torchrun --nnodes $N t.py", None),
    ("_torchrun_arguments", {}, "torchrun --nnodes 2:$N t.py", None),
    ("_torchrun_arguments", {}, "torchrun --nnodes $N:2 t.py", None),
    ("_pet", {"PET_NODE_RANK": "1", "PET_NNODES": "2"}, PYTHON, ("PET_NODE_RANK", 1, 2, 1, 2, 0, 1)),
    ("_pet", {"PET_NODE_RANK": "1", "PET_NNODES": "2:4"}, PYTHON, ("PET_NODE_RANK", 1, None, 1, None, 0, 1)),
    ("_pet", {"PET_NODE_RANK": "1"}, PYTHON, None),
    ("_pet", {"PET_NODE_RANK": "1"}, TORCHRUN, ("PET_NODE_RANK", 1, None, 1, None, 0, 1)),
    ("_pet", {"PET_NODE_RANK": "1", "PET_NNODES": "2"}, TORCHRUN, ("PET_NODE_RANK", 1, 2, 1, 2, 0, 1)),
    ("_pet", {"PET_NNODES": "2"}, TORCHRUN, None),
    ("_mpirun_in_slurm", {**STEP, **MPI}, PYTHON, ("OMPI_COMM_WORLD_RANK", 3, 4, None, None, 1, 2)),
    ("_mpirun_in_slurm", MPI, PYTHON, None),
    ("_mpirun_in_slurm", STEP, PYTHON, None),
    (
        "_mpirun_in_slurm",
        {"SLURM_JOBID": "1", "MPI_LOCALRANKID": "0", "PMI_RANK": "2"},
        PYTHON,
        ("PMI_RANK", 2, None, None, None, 0, None),
    ),
    (
        "_ft_launcher",
        {"CROSS_SLURM_PROCID": "5", "SLURM_PROCID": "1"},
        FT,
        ("CROSS_SLURM_PROCID", 5, None, 5, None, 0, 1),
    ),
    ("_ft_launcher", {"CROSS_SLURM_PROCID": "5"}, TWO, None),
    ("_ft_launcher", {"CROSS_SLURM_PROCID": "5"}, PYTHON, None),
    ("_ft_launcher", {"CROSS_SLURM_PROCID": "5", "SLURM_JOB_ID": "1", **MPI}, FT, None),
    (
        "_ft_launcher",
        {"SLURM_ARRAY_TASK_ID": "2", "SLURM_PROCID": "1", "SLURM_NNODES": "3"},
        FT,
        ("SLURM_ARRAY_TASK_ID", 7, None, 7, None, 0, 1),
    ),
    (
        "_ft_launcher",
        {"SLURM_ARRAY_TASK_ID": "2", "SLURM_PROCID": "1", "SLURM_JOB_NUM_NODES": "4"},
        FT,
        ("SLURM_ARRAY_TASK_ID", 9, None, 9, None, 0, 1),
    ),
    ("_ft_launcher", {"SLURM_ARRAY_TASK_ID": "2", "SLURM_PROCID": "1"}, FT, None),
    ("_ft_launcher", {"SLURM_ARRAY_TASK_ID": "2", "SLURM_NNODES": "3"}, FT, None),
    ("_ft_launcher", {"SLURM_PROCID": "1", "SLURM_NNODES": "3", "GROUP_RANK": "1"}, FT, None),
    ("_ft_launcher", {"GROUP_RANK": "4"}, FT, ("GROUP_RANK", 4, None, 4, None, 0, 1)),
    ("_ft_launcher", {}, FT, None),
    (
        "_slurm",
        {**STEP, "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"},
        PYTHON,
        ("SLURM_PROCID", 3, 4, 1, 2, 1, 2),
    ),
    (
        "_slurm",
        {**STEP, "SLURM_NTASKS": "5", "SLURM_NNODES": "2", "SLURM_TASKS_PER_NODE": "3,2"},
        PYTHON,
        ("SLURM_PROCID", 3, 5, 1, 2, 1, 2),
    ),
    (
        "_slurm",
        {
            **STEP,
            "SLURM_STEP_NUM_TASKS": "4",
            "SLURM_NTASKS": "9",
            "SLURM_STEP_NUM_NODES": "2",
            "SLURM_NNODES": "9",
            "SLURM_STEP_TASKS_PER_NODE": "1,3",
            "SLURM_TASKS_PER_NODE": "9",
        },
        PYTHON,
        ("SLURM_PROCID", 3, 4, 1, 2, 1, 3),
    ),
    ("_slurm", {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, PYTHON, None),
    ("_slurm", {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, PYTHON, ("SLURM_PROCID", 1, 4, None, None, None, None)),
    ("_slurm", {"SLURM_PROCID": "0", "SLURM_STEPID": "0"}, PYTHON, ("SLURM_PROCID", 0, None, None, None, None, None)),
    ("_slurm", {"SLURM_PROCID": "0", "SLURM_STEP_ID": "4294967291"}, PYTHON, None),
    (
        "_slurm",
        {"SLURM_PROCID": "0", "SLURM_STEP_ID": "4294967279"},
        PYTHON,
        ("SLURM_PROCID", 0, None, None, None, None, None),
    ),
    ("_slurm", {"SLURM_PROCID": "0", "SLURM_STEP_ID": "4294967280"}, PYTHON, None),
    ("_slurm", {**STEP, **MPI}, PYTHON, None),
    ("_slurm", {"SLURM_NTASKS": "4"}, PYTHON, None),
    (
        "_skypilot",
        {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2"},
        PYTHON,
        ("SKYPILOT_NODE_RANK", 1, 2, 1, 2, 0, 1),
    ),
    ("_skypilot", {"SKYPILOT_NUM_NODES": "2"}, PYTHON, None),
    ("_dstack", {"DSTACK_NODE_RANK": "1", "DSTACK_NODES_NUM": "2"}, PYTHON, ("DSTACK_NODE_RANK", 1, 2, 1, 2, 0, 1)),
    ("_mpi", {**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, PYTHON, ("OMPI_COMM_WORLD_RANK", 3, 4, None, 1, 1, 4)),
    (
        "_mpi",
        {"PMI_RANK": "2", "PMI_SIZE": "3", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
        PYTHON,
        ("PMI_RANK", 2, 3, None, None, 1, 2),
    ),
    ("_mpi", {"PMIX_RANK": "2"}, PYTHON, ("PMIX_RANK", 2, None, None, None, None, None)),
    ("_mpi", {"PMI_SIZE": "3"}, PYTHON, None),
    (
        "_kubernetes",
        {"JOB_COMPLETION_INDEX": "1", "MASTER_ADDR": "h"},
        PYTHON,
        ("JOB_COMPLETION_INDEX", 1, None, 1, None, 0, 1),
    ),
    ("_kubernetes", {"JOB_COMPLETION_INDEX": "1"}, TWO, ("JOB_COMPLETION_INDEX", 1, None, 1, None, 0, 1)),
    ("_kubernetes", {"JOB_COMPLETION_INDEX": "1"}, PYTHON, None),
    ("_kubernetes", {"JOB_COMPLETION_INDEX": "1"}, TORCHRUN, None),
    ("_kubernetes", {"MASTER_ADDR": "h"}, TWO, None),
    ("_node_rank", {"NODE_RANK": "1", "NNODES": "2"}, PYTHON, ("NODE_RANK", 1, 2, 1, 2, 0, 1)),
    ("_node_rank", {"NODE_RANK": "1", "NUM_NODES": "3"}, PYTHON, ("NODE_RANK", 1, 3, 1, 3, 0, 1)),
    ("_node_rank", {"NODE_RANK": "1", "MASTER_ADDR": "h"}, PYTHON, ("NODE_RANK", 1, None, 1, None, 0, 1)),
    ("_node_rank", {"NODE_RANK": "1"}, TWO, ("NODE_RANK", 1, None, 1, None, 0, 1)),
    ("_node_rank", {"NODE_RANK": "1"}, PYTHON, None),
    ("_node_rank", {"NNODES": "2"}, TWO, None),
    ("_bare_rank", {"RANK": "1"}, TORCHRUN, ("RANK", 1, None, 1, None, 0, 1)),
    ("_bare_rank", {"RANK": "0"}, TORCHRUN, None),
    ("_bare_rank", {"RANK": "0"}, TWO, ("RANK", 0, None, 0, None, 0, 1)),
    ("_bare_rank", {"GROUP_RANK": "2"}, TORCHRUN, ("GROUP_RANK", 2, None, 2, None, 0, 1)),
    ("_bare_rank", {"RANK": "0", "GROUP_RANK": "2"}, TORCHRUN, ("GROUP_RANK", 2, None, 2, None, 0, 1)),
    ("_bare_rank", {"RANK": "1", "WORLD_SIZE": "2"}, PYTHON, ("RANK", 1, 2, None, None, None, None)),
    (
        "_bare_rank",
        {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
        PYTHON,
        ("RANK", 1, 2, None, 1, 1, 2),
    ),
    ("_bare_rank", {"RANK": "1"}, PYTHON, None),
    ("_bare_rank", {"WORLD_SIZE": "2"}, PYTHON, None),
]


@pytest.mark.parametrize(("rule", "environ", "command", "expected"), CLAIMS)
def test_what_a_source_says(rule, environ, command, expected):
    found = getattr(launchers, rule)(environ, read(shlex.split(command)))
    assert found == (None if expected is None else Claim(*expected))


def test_the_order_of_the_sources():
    names = [rule.__name__.strip("_") for rule in launchers.RULES]
    assert names == [
        "own", "torchrun_worker", "torchrun_arguments", "pet", "mpirun_in_slurm", "ft_launcher", "slurm", "skypilot",
        "dstack", "mpi", "kubernetes", "node_rank", "bare_rank",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "node", "expected"),
    [
        ("2(x3),1", 0, 2),
        ("2(x3),1", 2, 2),
        ("2(x3),1", 3, 1),
        ("2(x3),1", 4, None),
        ("3, 2", 1, 2),
        ("2(x3),1", None, None),
        ("", 0, None),
        ("2(x", 0, None),
        ("2,x", 0, None),
        ("3(x100001)", 99_999, 3),
        ("3(x100001)", 100_000, None),  # no machine has so many, and a list of them would fill the memory
    ],
)
def test_the_tasks_of_a_node(text, node, expected):
    assert launchers._tasks_on_node(text, node) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), (" 12\n", 12), ("9" * 18, 10**18 - 1), ("9" * 19, None), ("-1", None), ("1.0", None), ("", None),
     (None, None), ("auto", None), ("$NODE_RANK", None)],
)  # fmt: skip
def test_a_count_or_a_rank(text, number):
    assert launchers.parse_number(text) == number


#  environment, command: the whole place
PLACES = [
    ({}, PYTHON, Place(0, 1, 0, 1, 0, 1, 0, "no launcher's variables")),
    ({}, TORCHRUN, Place(0, 1, 0, 1, 0, 1, 0, "torchrun's default of one node")),
    ({}, TWO, Place(None, 2, None, 2, None, None, 0, "--nnodes")),
    ({}, "torchrun --nnodes 1:4 t.py", Place(None, None, None, None, None, None, 0, "--nnodes")),
    ({"NODE_RANK": "1"}, TWO, Place(1, 2, 1, 2, 0, 1, 0, "NODE_RANK")),
    (
        {**WORKER, "TORCHELASTIC_RESTART_COUNT": "2", "SLURM_RESTART_COUNT": "1"},
        PYTHON,
        Place(3, 4, 1, 2, 1, 2, 3, "RANK of torchrun"),
    ),
    (
        {**STEP, "SLURM_NTASKS": "4", "SLURM_NNODES": "1", "SLURM_NODEID": "0"},
        PYTHON,
        Place(3, 4, 0, 1, 3, 4, 0, "SLURM_PROCID"),
    ),
    (
        {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
        TORCHRUN,
        Place(1, 2, None, None, None, None, 0, "SLURM_PROCID"),
    ),
    ({**WORKER, "NODE_RANK": "0", "NNODES": "4"}, PYTHON, Place(3, 4, 1, 2, 1, 2, 0, "RANK of torchrun")),
    ({"GROUP_RANK": "1", "NODE_RANK": "0", "NNODES": "4"}, FT, Place(1, 2, 1, 2, 0, 1, 0, "GROUP_RANK")),
]


PLACES.append(({"RANK": "0", "WORLD_SIZE": "1"}, PYTHON, Place(0, 1, 0, 1, 0, 1, 0, "RANK")))


@pytest.mark.parametrize(("environ", "command", "expected"), PLACES)
def test_the_whole_place(environ, command, expected):
    assert place(environ, read(shlex.split(command))) == expected


@pytest.mark.parametrize(
    ("index", "count", "said"),
    [(1, 4, "launcher 1 of 4 (X)"), (None, 4, "launcher ? of 4 (X)"), (0, None, "launcher 0 of an unknown number (X)")],
)
def test_a_place_in_words(index, count, said):
    assert str(Place(index, count, None, None, None, None, 0, "X")) == said


def test_a_contradiction_about_the_number_of_nodes_and_none_about_the_same():
    environ = {"NODE_RANK": "1", "NNODES": "4", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2"}
    assert place(environ, read(["python", "t.py"])).contradictions == (
        "SKYPILOT_NODE_RANK says 2 nodes, NODE_RANK says 4: SKYPILOT_NODE_RANK decides",
    )
    environ["NODE_RANK"] = "0"
    assert place(environ, read(["python", "t.py"])).contradictions == (
        "SKYPILOT_NODE_RANK says node 1, NODE_RANK says node 0: SKYPILOT_NODE_RANK decides",
    )
    assert place(environ, read(shlex.split(FT))).contradictions == ()


def test_a_worker_of_torchrun_contradicts_nobody():
    environ = {**WORKER, "NEMOTRON_EXEC_NODE_RANK": "0", "NEMOTRON_EXEC_NNODES": "4"}
    assert place(environ, read(["python", "t.py"])) == Place(0, 4, 0, 4, 0, 1, 0, "NEMOTRON_EXEC_NODE_RANK")


@pytest.mark.parametrize(("count", "nodes"), [(0, 0), (1, 1), (2, 2), (None, None)])
def test_alone_is_one_launcher_and_one_node(count, nodes):
    here = Place(0, count, 0, nodes, 0, 1, 0, "X")
    assert here.single is (count == 1)
    assert here.several_nodes is (nodes != 1)
