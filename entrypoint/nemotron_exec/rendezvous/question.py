"""What the launchers of a job ask, as far as it tells them apart: equal keys meet, different ones may be a mistake."""

from __future__ import annotations

import json

from nemotron_exec.frozen import dataclass, field

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Question", "differences", "read_parts"]

_SHOWN = 4


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        key: Digest of all that bears on the answer.
        program: The started program as a short digest: script and the names of its configs. Launchers of one step with
            different programs may ask different questions; with one program, they were started with different words.
        parts: What the key is made of, for people: a name, and a value or a digest.
    """

    key: str
    program: str = "-"
    parts: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The parts, as a launcher leaves them in its entry."""
        return json.dumps(dict(self.parts)).encode()


def read_parts(data: bytes | None) -> dict[str, str]:
    """The inverse of `Question.to_bytes`; empty where there is nothing to be read."""
    try:
        parts = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return {str(name): str(value) for name, value in parts.items()} if isinstance(parts, dict) else {}


def differences(mine: Mapping[str, str], other: Mapping[str, str], where: str) -> str:
    """In what two questions differ: `run.data is blend:v1 here and blend:v2 on node1`.

    Args:
        mine: The parts of this launcher's question.
        other: Those of the other one.
        where: Who asks the other one, for people.
    """
    names = sorted(name for name in {*mine, *other} if mine.get(name) != other.get(name))
    if not names or not other:
        return f"{where} asks for something else"
    shown = [
        f"{name} is {mine.get(name, 'not given')} here and {other.get(name, 'not given')} for {where}"
        for name in names[:_SHOWN]
    ]
    return "; ".join(shown) + (f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
