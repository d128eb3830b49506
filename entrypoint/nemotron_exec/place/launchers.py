"""Reads the variables and options of each launcher and scheduler about this process: one function a source."""

from __future__ import annotations

import re

from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nemotron_exec.command.words import Command

__all__ = ["RULES", "Claim", "in_mpirun", "parse_number"]


@dataclass(frozen=True)
class Claim:
    """The statement of one source. `silent`: the source gives one launcher only because it names no other nodes."""

    source: str
    index: int | None = None
    count: int | None = None
    node: int | None = None
    nodes: int | None = None
    local_index: int | None = None
    local_count: int | None = None
    worker: bool = False
    silent: bool = False


def in_mpirun(environ: Mapping[str, str]) -> bool:
    """Whether mpirun (Open MPI, or the Hydra of MPICH and Intel MPI) started this process inside a Slurm job.

    mpirun starts one daemon a node by `srun`. The ranks inherit the daemon's step, task number and node number; ranks
    on the node of the batch script may inherit no step at all.
    """
    inside = "SLURM_JOB_ID" in environ or "SLURM_JOBID" in environ
    return inside and ("OMPI_COMM_WORLD_RANK" in environ or "MPI_LOCALRANKID" in environ)


def _own(environ: Mapping[str, str], _command: Command) -> Claim | None:
    index = parse_number(environ.get("NEMOTRON_EXEC_NODE_RANK"))
    if index is None:
        return None
    nodes = parse_number(environ.get("NEMOTRON_EXEC_NNODES"))
    return Claim("NEMOTRON_EXEC_NODE_RANK", index, nodes, index, nodes, 0, 1)


def _torchrun_worker(environ: Mapping[str, str], _command: Command) -> Claim | None:
    # PyTorchJob and an enroot hook set RANK before torchrun, for the node or the task. It is torchrun's rank only if
    # torchrun's run id is set, too.
    index = parse_number(environ.get("RANK"))
    if "TORCHELASTIC_RUN_ID" not in environ or index is None:
        return None
    return Claim(
        "RANK of torchrun",
        index,
        parse_number(environ.get("WORLD_SIZE")),
        parse_number(environ.get("GROUP_RANK")),
        parse_number(environ.get("GROUP_WORLD_SIZE")),
        parse_number(environ.get("LOCAL_RANK")),
        parse_number(environ.get("LOCAL_WORLD_SIZE")),
        worker=True,
    )


def _torchrun_arguments(environ: Mapping[str, str], command: Command) -> Claim | None:
    if command.launcher is None:
        return None
    options = command.launcher.options
    if "standalone" in options or environ.get("PET_STANDALONE", "0") not in ("", "0"):
        return Claim("--standalone", 0, 1, 0, 1, 0, 1)
    if "nnodes" in options:
        source, written = "--nnodes", options["nnodes"]
    elif "PET_NNODES" in environ:
        source, written = "PET_NNODES", environ["PET_NNODES"]
    else:
        source, written = "torchrun's default of one node", "1"
    nodes, known = _nodes(written)
    if nodes == 1:
        return Claim(source, 0, 1, 0, 1, 0, 1, silent=source not in ("--nnodes", "PET_NNODES"))
    if not known:
        return None
    index = parse_number(options.get("node_rank"))
    if index is not None:
        return Claim("--node-rank", index, nodes, index, nodes, 0, 1)
    # The number of nodes is known here. Another source has to give the rank.
    return Claim(source, None, nodes, None, nodes)


def _pet(environ: Mapping[str, str], command: Command) -> Claim | None:
    index = parse_number(environ.get("PET_NODE_RANK"))
    if index is None:
        return None
    nodes, _ = _nodes(environ.get("PET_NNODES", ""))
    if command.launcher is None and nodes is None and "PET_NNODES" not in environ:
        return None
    return Claim("PET_NODE_RANK", index, nodes, index, nodes, 0, 1)


def _ft_launcher(environ: Mapping[str, str], command: Command) -> Claim | None:
    """The rank of ft_launcher by its own rule: nvidia_resiliency_ext/fault_tolerance/utils.py, get_infrastructure_rank.

    It can also derive ranks from node names (NVRX_INFRA_RANK_FROM_NODENAME) or the topology (SLURM_TOPOLOGY_ADDR).
    These order nodes for the network and do not count from 0, so Slurm's number decides who resolves.
    """
    if command.launcher is None or command.launcher.kind != "ft_launcher" or in_mpirun(environ):
        return None
    if (index := parse_number(environ.get("CROSS_SLURM_PROCID"))) is not None:
        return Claim("CROSS_SLURM_PROCID", index, None, index, None, 0, 1)
    task = parse_number(environ.get("SLURM_PROCID"))
    array = parse_number(environ.get("SLURM_ARRAY_TASK_ID"))
    nodes = parse_number(environ.get("SLURM_NNODES")) or parse_number(environ.get("SLURM_JOB_NUM_NODES"))
    if array is not None and task is not None and nodes is not None:
        index = array * nodes + task
        return Claim("SLURM_ARRAY_TASK_ID", index, None, index, None, 0, 1)
    if task is None and (group := parse_number(environ.get("GROUP_RANK"))) is not None:
        return Claim("GROUP_RANK", group, None, group, None, 0, 1)
    return None


def _mpirun_in_slurm(environ: Mapping[str, str], command: Command) -> Claim | None:
    return _mpi(environ, command) if in_mpirun(environ) else None


def _slurm(environ: Mapping[str, str], _command: Command) -> Claim | None:
    if in_mpirun(environ):
        return None
    index = parse_number(environ.get("SLURM_PROCID"))
    if index is None or not (_slurm_step(environ) or index > 0):
        # A batch script has SLURM_PROCID=0 and the SLURM_NTASKS of the whole job, but it is the only launcher.
        return None
    node = parse_number(environ.get("SLURM_NODEID"))
    count = parse_number(environ.get("SLURM_STEP_NUM_TASKS")) or parse_number(environ.get("SLURM_NTASKS"))
    nodes = parse_number(environ.get("SLURM_STEP_NUM_NODES")) or parse_number(environ.get("SLURM_NNODES"))
    tasks = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE", "")
    local_count = _tasks_on_node(tasks, node)
    return Claim("SLURM_PROCID", index, count, node, nodes, parse_number(environ.get("SLURM_LOCALID")), local_count)


def _slurm_step(environ: Mapping[str, str]) -> bool:
    step = parse_number(environ.get("SLURM_STEP_ID") or environ.get("SLURM_STEPID"))
    # slurm.h numbers the batch, extern and interactive steps downward from 0xfffffffd.
    return step is not None and step < 0xFFFFFFF0


def _skypilot(environ: Mapping[str, str], _command: Command) -> Claim | None:
    return _per_node(environ, "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES")


def _dstack(environ: Mapping[str, str], _command: Command) -> Claim | None:
    return _per_node(environ, "DSTACK_NODE_RANK", "DSTACK_NODES_NUM")


def _mpi(environ: Mapping[str, str], _command: Command) -> Claim | None:
    # OMPI_COMM_WORLD_NODE_RANK is the process's rank on its node, not the rank of the node.
    for rank, size, local_rank, local_size in (
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
        ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
        ("PMIX_RANK", "", "", ""),
    ):
        index = parse_number(environ.get(rank))
        if index is None:
            continue
        count, local_count = parse_number(environ.get(size)), parse_number(environ.get(local_size))
        nodes = 1 if count is not None and count == local_count else None
        return Claim(rank, index, count, None, nodes, parse_number(environ.get(local_rank)), local_count)
    return None


def _kubernetes(environ: Mapping[str, str], command: Command) -> Claim | None:
    # An Indexed Job is often an array of independent jobs. Its index is a rank only if a variable names other nodes.
    index = parse_number(environ.get("JOB_COMPLETION_INDEX"))
    if index is None or not (_spans_nodes(environ, command) or "MASTER_ADDR" in environ):
        return None
    return Claim("JOB_COMPLETION_INDEX", index, None, index, None, 0, 1)


def _node_rank(environ: Mapping[str, str], command: Command) -> Claim | None:
    index = parse_number(environ.get("NODE_RANK"))
    if index is None:
        return None
    nodes = parse_number(environ.get("NNODES")) or parse_number(environ.get("NUM_NODES"))
    if nodes is None and not (_spans_nodes(environ, command) or "MASTER_ADDR" in environ):
        return None
    return Claim("NODE_RANK", index, nodes, index, nodes, 0, 1)


def _bare_rank(environ: Mapping[str, str], command: Command) -> Claim | None:
    if command.launcher is not None:
        # Before torchrun, RANK (PyTorchJob) and GROUP_RANK (DGX Cloud) number the node, and WORLD_SIZE counts
        # processes.
        for name in ("RANK", "GROUP_RANK"):
            if (index := parse_number(environ.get(name))) is not None and (index > 0 or _spans_nodes(environ, command)):
                return Claim(name, index, None, index, None, 0, 1)
        return None
    index, count = parse_number(environ.get("RANK")), parse_number(environ.get("WORLD_SIZE"))
    if index is None or count is None:
        return None
    local_count = parse_number(environ.get("LOCAL_WORLD_SIZE"))
    nodes = 1 if count == local_count else None
    return Claim("RANK", index, count, None, nodes, parse_number(environ.get("LOCAL_RANK")), local_count)


RULES: tuple[Callable[[Mapping[str, str], Command], Claim | None], ...] = (
    _own,
    _torchrun_worker,
    _torchrun_arguments,
    _pet,
    _mpirun_in_slurm,
    _ft_launcher,
    _slurm,
    _skypilot,
    _dstack,
    _mpi,
    _kubernetes,
    _node_rank,
    _bare_rank,
)


def _per_node(environ: Mapping[str, str], rank: str, size: str) -> Claim | None:
    index, nodes = parse_number(environ.get(rank)), parse_number(environ.get(size))
    return None if index is None else Claim(rank, index, nodes, index, nodes, 0, 1)


def _spans_nodes(environ: Mapping[str, str], command: Command) -> bool:
    """Whether the options of the wrapped torchrun name more than one node."""
    claim = _torchrun_arguments(environ, command)
    return claim is not None and claim.count != 1


def _nodes(written: str) -> tuple[int | None, bool]:
    """The number of nodes in torchrun's `N` or `MIN:MAX` (None if it may change), and whether the text can be read."""
    low, colon, high = written.partition(":")
    first, last = parse_number(low), parse_number(high if colon else low)
    if first is None or last is None:
        return None, False
    return (first if first == last else None), True


def parse_number(text: str | None) -> int | None:
    """A count or rank; None for an absent text, or one that is no number (`auto`, a literal `$NODE_RANK`)."""
    return int(text) if text and re.fullmatch(r"\d{1,18}", text.strip()) else None


def _tasks_on_node(text: str, node: int | None) -> int | None:
    """The number of tasks on a node, from Slurm's list: `2(x3),1` gives 1 for node 3."""
    if node is None:
        return None
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            return None
        counts += [int(match[1])] * min(int(match[2] or 1), 100_000)
    return counts[node] if node < len(counts) else None
