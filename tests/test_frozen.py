"""nemotron-exec's frozen dataclasses behave as those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from nemotron_exec import frozen


def _classes(maker):
    @maker.dataclass(frozen=True)
    class Point:
        x: int
        y: int = 2
        tags: list[str] = maker.field(default_factory=list)
        secret: str = maker.field(default="s3cret", repr=False)

        @property
        def sum(self):
            return self.x + self.y

    return Point


OURS, STANDARD = _classes(frozen), _classes(dataclasses)


@frozen.dataclass(frozen=True)
class Inner:
    x: int


@frozen.dataclass(frozen=True)
class Pickled:
    x: int
    inner: Inner | None = None


@pytest.mark.parametrize(
    "make",
    [
        lambda point: point(1),
        lambda point: point(1, 3),
        lambda point: point(y=3, x=1),
        lambda point: point(1, tags=["a"]),
        lambda point: point(1, 2, ["a"], "other"),
    ],
    ids=["default", "positional", "named", "factory", "all"],
)
def test_instances_are_as_those_of_the_standard_library(make):
    ours, standard = make(OURS), make(STANDARD)
    assert repr(ours) == repr(standard)
    assert vars(ours) == vars(standard)
    assert ours == make(OURS)
    assert ours != standard
    assert frozen.asdict(ours) == dataclasses.asdict(standard)
    assert [item.name for item in frozen.fields(ours)] == [item.name for item in dataclasses.fields(standard)]
    assert vars(frozen.replace(ours, x=7)) == vars(dataclasses.replace(standard, x=7))
    assert copy.copy(ours) == copy.deepcopy(ours) == ours


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1, 2, [], "", 5), {}), ((1,), {"x": 1}), ((1,), {"z": 1})],
    ids=["missing", "too many", "twice", "unknown"],
)
def test_wrong_arguments_are_type_errors_as_there(values, named):
    for point in (OURS, STANDARD):
        with pytest.raises(TypeError):
            point(*values, **named)


def test_an_instance_cannot_be_changed():
    for point in (OURS(1), STANDARD(1)):
        with pytest.raises(AttributeError):
            point.x = 2
        with pytest.raises(AttributeError):
            del point.x


def test_equal_instances_hash_alike_and_survive_pickling():
    assert hash(Pickled(1)) == hash(Pickled(1))
    assert len({Pickled(1), Pickled(1), Pickled(2)}) == 2
    assert pickle.loads(pickle.dumps(Pickled(1, Inner(2)))) == Pickled(1, Inner(2))
    assert frozen.asdict(Pickled(1)) == {"x": 1, "inner": None}
    assert frozen.asdict(Pickled(1, Inner(2))) == {"x": 1, "inner": {"x": 2}}


def test_a_default_that_is_made_is_not_shared():
    assert OURS(1).tags is not OURS(1).tags
