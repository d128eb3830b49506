"""Step 2, place: which launcher process of the job this is, read from the environment and the wrapped command.

One pure function over what eleven launchers say. The sources are asked in the order of the design page (Coordination);
the first that knows an index decides, and what a later one says otherwise is one warning.
"""

from __future__ import annotations

from nemotron_exec.frozen import dataclass
from nemotron_exec.place.launchers import RULES, Claim, parse_number

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

    from nemotron_exec.command.words import Command

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
        """Whether this is the job's only launcher process, which has no other to agree with."""
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


def place(environ: Mapping[str, str], command: Command) -> Place:
    """Read this process's place.

    Args:
        environ: The environment.
        command: The wrapped command, read.
    """
    claims = [claim for rule in RULES if (claim := rule(environ, command)) is not None]
    decided = next((claim for claim in claims if claim.index is not None), None)
    if decided is not None and decided.silent:
        # `torchrun` with no word of other nodes, started once per task all the same: its siblings are real.
        decided = next((claim for claim in claims if claim.index is not None and (claim.count or 1) > 1), decided)
    attempt = _restarts(environ)
    declared = next((claim for claim in claims if claim.index is None), None)
    if decided is None:
        if declared is None:
            return Place(0, 1, 0, 1, 0, 1, attempt, "no launcher's variables")
        # Elastic: torchrun's rendezvous gives out the ranks, after this launcher. The first to take the lease leads.
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


def _contradictions(decided: Claim, claims: list[Claim], command: Command) -> tuple[str, ...]:
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
    return sum(parse_number(environ.get(name)) or 0 for name in names)
