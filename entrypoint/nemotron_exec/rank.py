"""Step 2, place: which launcher process of the job this is, read from the environment and the wrapped command.

One pure function over what eleven launchers say. The sources are asked in the order of the design page (Coordination);
the first that knows an index decides, and what a later one says otherwise is one warning.
"""

from __future__ import annotations

import re

from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nemotron_exec.command import Command

__all__ = ["Place", "place"]


@dataclass(frozen=True)
class Place:
    """Where this launcher process stands in its job.

    Attributes:
        index: Which launcher process of the job this is, from 0; None if unknown before the launch (elastic).
        count: How many launcher processes the job has; None if unknown.
        node: Number of this node; None if unknown.
        nodes: Number of nodes; None if unknown.
        local_index: Which launcher process of this node this is; None if unknown.
        local_count: How many launcher processes this node has; None if unknown.
        attempt: How often the job has been restarted before.
        source: The variable or argument that decided.
        contradictions: What other sources say that disagrees, one sentence each.
    """

    index: int | None
    count: int | None
    node: int | None
    nodes: int | None
    local_index: int | None
    local_count: int | None
    attempt: int
    source: str
    contradictions: tuple[str, ...] = ()

    @property
    def single(self) -> bool:
        """Whether this is the job's only launcher process: nobody to agree with."""
        return self.count == 1

    @property
    def several_nodes(self) -> bool:
        """Whether the job may have launchers on other nodes: only a directory that they share will do."""
        return self.nodes != 1

    def __str__(self) -> str:
        """`launcher 1 of 4 (--node-rank)`, for messages."""
        index = "?" if self.index is None else str(self.index)
        count = "an unknown number" if self.count is None else str(self.count)
        return f"launcher {index} of {count} ({self.source})"


@dataclass(frozen=True)
class _Claim:
    """What one source says. `silent`: one launcher only because nothing is said of others."""

    source: str
    index: int | None = None
    count: int | None = None
    node: int | None = None
    nodes: int | None = None
    local_index: int | None = None
    local_count: int | None = None
    worker: bool = False
    silent: bool = False


def place(environ: Mapping[str, str], command: Command) -> Place:
    """Read this process's place.

    Args:
        environ: The environment.
        command: The wrapped command, read.
    """
    claims = [claim for rule in _RULES if (claim := rule(environ, command)) is not None]
    decided = next((claim for claim in claims if claim.index is not None), None)
    if decided is not None and decided.silent:
        # `torchrun` with no word of other nodes, started once per task all the same: its siblings are real.
        decided = next((claim for claim in claims if claim.index is not None and (claim.count or 1) > 1), decided)
    attempt = _restarts(environ)
    declared = next((claim for claim in claims if claim.index is None), None)
    if decided is None:
        if declared is None:
            return Place(0, 1, 0, 1, 0, 1, attempt, "no launcher's variables")
        # Elastic: ranks are given out at the rendezvous, after us. The first to take the lease leads.
        return Place(None, declared.count, None, declared.nodes, None, None, attempt, declared.source)
    count, nodes = decided.count, decided.nodes
    if declared is not None and not decided.worker:
        count = declared.count if count is None else count
        nodes = declared.nodes if nodes is None else nodes
    if count == 1:
        nodes = 1
    return Place(
        index=decided.index,
        count=count,
        node=0 if nodes == 1 else decided.node,
        nodes=nodes,
        local_index=decided.index if nodes == 1 else decided.local_index,
        local_count=count if nodes == 1 else decided.local_count,
        attempt=attempt,
        source=decided.source,
        contradictions=_contradictions(decided, claims, command),
    )


def _contradictions(decided: _Claim, claims: list[_Claim], command: Command) -> tuple[str, ...]:
    # A worker's group rank is given out at the rendezvous and need not equal the scheduler's; neither need
    # ft_launcher's, which also keeps more launchers than nodes (hot spares).
    if decided.worker or (command.launcher is not None and command.launcher.kind == "ft_launcher"):
        return ()
    found = []
    for other in claims:
        if other is decided or other.worker or other.silent:
            continue
        if None not in (decided.node, other.node) and decided.node != other.node:
            found.append(f"{decided.source} says node {decided.node}, {other.source} says node {other.node}")
        elif None not in (decided.nodes, other.nodes) and decided.nodes != other.nodes:
            found.append(f"{decided.source} says {decided.nodes} nodes, {other.source} says {other.nodes}")
    return tuple(f"{text}: {decided.source} decides" for text in found)


def _restarts(environ: Mapping[str, str]) -> int:
    """Restarts before this one: Slurm's requeues and torchrun's restarts, which count separately."""
    names = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    return sum(_number(environ.get(name)) or 0 for name in names)


# -- the sources, in order ------------------------------------------------------------------------------------------


def _own(environ: Mapping[str, str], _command: Command) -> _Claim | None:
    index = _number(environ.get("NEMOTRON_EXEC_NODE_RANK"))
    if index is None:
        return None
    nodes = _number(environ.get("NEMOTRON_EXEC_NNODES"))
    return _Claim("NEMOTRON_EXEC_NODE_RANK", index, nodes, index, nodes, 0, 1)


def _torchrun_worker(environ: Mapping[str, str], _command: Command) -> _Claim | None:
    # PyTorchJob and an enroot hook set RANK before torchrun, meaning the node or the task: without torchrun's own id
    # they are not torchrun's.
    index = _number(environ.get("RANK"))
    if "TORCHELASTIC_RUN_ID" not in environ or index is None:
        return None
    return _Claim(
        "RANK of torchrun",
        index,
        _number(environ.get("WORLD_SIZE")),
        _number(environ.get("GROUP_RANK")),
        _number(environ.get("GROUP_WORLD_SIZE")),
        _number(environ.get("LOCAL_RANK")),
        _number(environ.get("LOCAL_WORLD_SIZE")),
        worker=True,
    )


def _torchrun_arguments(environ: Mapping[str, str], command: Command) -> _Claim | None:
    if command.launcher is None:
        return None
    options = command.launcher.options
    if "standalone" in options or environ.get("PET_STANDALONE", "0") not in ("", "0"):
        return _Claim("--standalone", 0, 1, 0, 1, 0, 1)
    if "nnodes" in options:
        source, written = "--nnodes", options["nnodes"]
    elif "PET_NNODES" in environ:
        source, written = "PET_NNODES", environ["PET_NNODES"]
    else:
        source, written = "torchrun's default of one node", "1"
    nodes, known = _nodes(written)
    if nodes == 1:
        return _Claim(source, 0, 1, 0, 1, 0, 1, silent=source not in ("--nnodes", "PET_NNODES"))
    if not known:
        return None
    index = _number(options.get("node_rank"))
    if index is not None:
        return _Claim("--node-rank", index, nodes, index, nodes, 0, 1)
    # The number of nodes is known here, the rank is another source's to say.
    return _Claim(source, None, nodes, None, nodes)


def _pet(environ: Mapping[str, str], command: Command) -> _Claim | None:
    index = _number(environ.get("PET_NODE_RANK"))
    if index is None:
        return None
    nodes, _ = _nodes(environ.get("PET_NNODES", ""))
    if command.launcher is None and nodes is None and "PET_NNODES" not in environ:
        return None
    return _Claim("PET_NODE_RANK", index, nodes, index, nodes, 0, 1)


def _ft_launcher(environ: Mapping[str, str], command: Command) -> _Claim | None:
    """ft_launcher's own rule: nvidia_resiliency_ext/fault_tolerance/utils.py, get_infrastructure_rank.

    Its ranks made of node names (NVRX_INFRA_RANK_FROM_NODENAME) or of the topology (SLURM_TOPOLOGY_ADDR) order nodes
    for the network and do not count from 0: who resolves is decided by Slurm's number all the same.
    """
    if command.launcher is None or command.launcher.kind != "ft_launcher":
        return None
    if (index := _number(environ.get("CROSS_SLURM_PROCID"))) is not None:
        return _Claim("CROSS_SLURM_PROCID", index, None, index, None, 0, 1)
    task = _number(environ.get("SLURM_PROCID"))
    array = _number(environ.get("SLURM_ARRAY_TASK_ID"))
    nodes = _number(environ.get("SLURM_NNODES")) or _number(environ.get("SLURM_JOB_NUM_NODES"))
    if array is not None and task is not None and nodes is not None:
        index = array * nodes + task
        return _Claim("SLURM_ARRAY_TASK_ID", index, None, index, None, 0, 1)
    if task is None and (group := _number(environ.get("GROUP_RANK"))) is not None:
        return _Claim("GROUP_RANK", group, None, group, None, 0, 1)
    return None


def _slurm(environ: Mapping[str, str], _command: Command) -> _Claim | None:
    index = _number(environ.get("SLURM_PROCID"))
    if index is None or not (_slurm_step(environ) or index > 0):
        # A batch script has SLURM_PROCID=0 and the whole job's SLURM_NTASKS, and is alone.
        return None
    node = _number(environ.get("SLURM_NODEID"))
    count = _number(environ.get("SLURM_STEP_NUM_TASKS")) or _number(environ.get("SLURM_NTASKS"))
    nodes = _number(environ.get("SLURM_STEP_NUM_NODES")) or _number(environ.get("SLURM_NNODES"))
    if count == 1:
        nodes = 1
    tasks = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE", "")
    local_count = _tasks_on_node(tasks, node)
    return _Claim("SLURM_PROCID", index, count, node, nodes, _number(environ.get("SLURM_LOCALID")), local_count)


def _slurm_step(environ: Mapping[str, str]) -> bool:
    step = _number(environ.get("SLURM_STEP_ID") or environ.get("SLURM_STEPID"))
    # slurm.h numbers the batch, extern and interactive steps down from 0xfffffffd.
    return step is not None and step < 0xFFFFFFF0


def _skypilot(environ: Mapping[str, str], _command: Command) -> _Claim | None:
    return _per_node(environ, "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES")


def _dstack(environ: Mapping[str, str], _command: Command) -> _Claim | None:
    return _per_node(environ, "DSTACK_NODE_RANK", "DSTACK_NODES_NUM")


def _mpi(environ: Mapping[str, str], _command: Command) -> _Claim | None:
    # OMPI_COMM_WORLD_NODE_RANK is the rank on the node, not the node's.
    for rank, size, local_rank, local_size in (
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
        ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
        ("PMIX_RANK", "", "", ""),
    ):
        index = _number(environ.get(rank))
        if index is None:
            continue
        count, local_count = _number(environ.get(size)), _number(environ.get(local_size))
        nodes = 1 if count is not None and count == local_count else None
        return _Claim(rank, index, count, None, nodes, _number(environ.get(local_rank)), local_count)
    return None


def _kubernetes(environ: Mapping[str, str], command: Command) -> _Claim | None:
    # An Indexed Job is as often an array of jobs on their own: the index is a rank where somebody speaks of others.
    index = _number(environ.get("JOB_COMPLETION_INDEX"))
    if index is None or not (_spans_nodes(environ, command) or "MASTER_ADDR" in environ):
        return None
    return _Claim("JOB_COMPLETION_INDEX", index, None, index, None, 0, 1)


def _node_rank(environ: Mapping[str, str], command: Command) -> _Claim | None:
    index = _number(environ.get("NODE_RANK"))
    if index is None:
        return None
    nodes = _number(environ.get("NNODES")) or _number(environ.get("NUM_NODES"))
    if nodes is None and not (_spans_nodes(environ, command) or "MASTER_ADDR" in environ):
        return None
    return _Claim("NODE_RANK", index, nodes, index, nodes, 0, 1)


def _bare_rank(environ: Mapping[str, str], command: Command) -> _Claim | None:
    if command.launcher is not None:
        # Before torchrun, RANK (PyTorchJob) and GROUP_RANK (DGX Cloud) mean the node; WORLD_SIZE counts processes.
        for name in ("RANK", "GROUP_RANK"):
            if (index := _number(environ.get(name))) is not None and (index > 0 or _spans_nodes(environ, command)):
                return _Claim(name, index, None, index, None, 0, 1)
        return None
    index, count = _number(environ.get("RANK")), _number(environ.get("WORLD_SIZE"))
    if index is None or count is None:
        return None
    local_count = _number(environ.get("LOCAL_WORLD_SIZE"))
    nodes = 1 if count == local_count else None
    return _Claim("RANK", index, count, None, nodes, _number(environ.get("LOCAL_RANK")), local_count)


_RULES: tuple[Callable[[Mapping[str, str], Command], _Claim | None], ...] = (
    _own,
    _torchrun_worker,
    _torchrun_arguments,
    _pet,
    _ft_launcher,
    _slurm,
    _skypilot,
    _dstack,
    _mpi,
    _kubernetes,
    _node_rank,
    _bare_rank,
)


# -- reading --------------------------------------------------------------------------------------------------------


def _per_node(environ: Mapping[str, str], rank: str, size: str) -> _Claim | None:
    index, nodes = _number(environ.get(rank)), _number(environ.get(size))
    return None if index is None else _Claim(rank, index, nodes, index, nodes, 0, 1)


def _spans_nodes(environ: Mapping[str, str], command: Command) -> bool:
    """Whether the wrapped torchrun is told of more nodes than one."""
    claim = _torchrun_arguments(environ, command)
    return claim is not None and claim.count != 1


def _nodes(written: str) -> tuple[int | None, bool]:
    """Torchrun's `N` or `MIN:MAX`: the number (None if it may change), and whether the text can be read."""
    low, colon, high = written.partition(":")
    first, last = _number(low), _number(high if colon else low)
    if first is None or last is None:
        return None, False
    return (first if first == last else None), True


def _number(text: str | None) -> int | None:
    """A count or rank; None for what is absent or no number (`auto`, a literal `$NODE_RANK`)."""
    return int(text) if text and re.fullmatch(r"\d{1,18}", text.strip()) else None


def _tasks_on_node(text: str, node: int | None) -> int | None:
    """Slurm's `2(x3),1` for node 3: 1."""
    if node is None:
        return None
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            return None
        counts += [int(match[1])] * min(int(match[2] or 1), 100_000)
    return counts[node] if node < len(counts) else None
