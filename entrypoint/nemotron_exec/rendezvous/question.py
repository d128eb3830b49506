"""The question of a job's launchers. Launchers with equal keys meet; different keys may be a mistake."""

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
    """The part of a start that decides the answer.

    Attributes:
        key: Digest of everything that decides the answer.
        program: A short digest of the started program: script and names of its configs. In one step, launchers with
            different programs may ask different questions. With the same program, their words differ by mistake.
        parts: The parts of the key, for people: a name, and a value or a digest.
    """

    key: str
    program: str = "-"
    parts: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The parts as bytes, for the launcher's entry."""
        return json.dumps(dict(self.parts)).encode()


def read_parts(data: bytes | None) -> dict[str, str]:
    """The inverse of `Question.to_bytes`; {} where the data cannot be read."""
    try:
        parts = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return {str(name): str(value) for name, value in parts.items()} if isinstance(parts, dict) else {}


def differences(mine: Mapping[str, str], other: Mapping[str, str], where: str) -> str:
    """The differences between two questions: `run.data is blend:v1 here and blend:v2 on node1`.

    Args:
        mine: The parts of this launcher's question.
        other: The parts of the other question.
        where: The launcher that asks the other question, for people.
    """
    names = sorted(name for name in {*mine, *other} if mine.get(name) != other.get(name))
    if not names or not other:
        return f"{where} has another command, config, override or option"
    shown = [
        f"{name} is {mine.get(name, 'not given')} here and {other.get(name, 'not given')} for {where}"
        for name in names[:_SHOWN]
    ]
    return "; ".join(shown) + (f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
