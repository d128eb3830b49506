"""Step 2, place: find the launcher's number in its job, from the environment and the wrapped command.

`place` is a pure function of the statements of eleven launchers. The sources are asked in the order of the design page
(Coordination). The first that knows an index decides. A later source that disagrees gives one warning.
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
    """The place of this launcher process in its job.

    Attributes:
        index: Number of this launcher in the job, from 0; None if it is unknown before the launch (elastic).
        count: Number of launchers of the job; None if unknown.
        node: Number of this node; None if unknown.
        nodes: Number of nodes; None if unknown.
        local_index: Number of this launcher on its node; None if unknown.
        local_count: Number of launchers on this node; None if unknown.
        attempt: Number of earlier restarts of the job.
        source: The variable or argument that decided.
        contradictions: Statements of other sources that disagree, one sentence each.
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
        """Whether this is the job's only launcher, so that it need not agree with another."""
        return self.count == 1

    @property
    def several_nodes(self) -> bool:
        """Whether the job may have launchers on other nodes, which then need a shared directory."""
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
        # `torchrun` without options for other nodes was started once per task, so the tasks are its siblings.
        decided = next((claim for claim in claims if claim.index is not None and (claim.count or 1) > 1), decided)
    attempt = _restarts(environ)
    declared = next((claim for claim in claims if claim.index is None), None)
    if decided is None:
        if declared is None:
            return Place(0, 1, 0, 1, 0, 1, attempt, "no launcher's variables")
        # Elastic: torchrun's rendezvous assigns ranks after this launcher has ended. The first launcher to take the
        # lease leads.
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
    # The rendezvous assigns a worker's group rank, which may differ from the scheduler's rank. So may ft_launcher's
    # rank, and ft_launcher has more launchers than nodes (hot spares).
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
    """The number of earlier restarts: Slurm's requeues and torchrun's restarts together, which count separately."""
    names = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    return sum(parse_number(environ.get(name)) or 0 for name in names)
