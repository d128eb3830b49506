"""Frozen dataclasses for the way to exec: as in the standard library, at a tenth of the cost.

`dataclasses` imports `inspect`, and compiles six methods for each class. Together that takes a fifth of the launcher's
time before exec. These classes have the same constructor, comparison, hash and repr. `replace`, `fields` and `asdict`
come from this module, too. A type checker sees the standard library's.
"""

# ruff: noqa: ANN001, ANN002, ANN003, ANN202, ANN204, ANN201
from __future__ import annotations

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, fields, replace

__all__ = ["asdict", "dataclass", "field", "fields", "replace"]


if not TYPE_CHECKING:
    _REQUIRED = object()

    class FrozenError(AttributeError):
        """An instance of a frozen class cannot be changed."""

    class _Factory:
        def __init__(self, make):
            self.make = make

    class _Unshown:
        def __init__(self, default):
            self.default = default

    class _Field:
        def __init__(self, name):
            self.name = name

    def field(*, default=_REQUIRED, default_factory=None, repr=True):  # noqa: A002
        """A default that is created for each instance (`default_factory`), or a field that repr does not show."""
        if default_factory is not None:
            return _Factory(default_factory)
        return default if repr else _Unshown(default)

    def dataclass(*, frozen):
        """Make `class` a frozen dataclass: its annotated names are the constructor's parameters."""
        assert frozen
        return _frozen

    def _frozen(cls):
        defaults, unshown = {}, set()
        for name in cls.__annotations__:
            default = cls.__dict__.get(name, _REQUIRED)
            if isinstance(default, _Factory):
                delattr(cls, name)
            elif isinstance(default, _Unshown):
                default = default.default
                unshown.add(name)
                setattr(cls, name, default)
            defaults[name] = default
        cls._unshown = unshown
        cls._fields = defaults
        cls.__match_args__ = tuple(defaults)
        cls.__init__ = _init
        cls.__repr__ = _repr
        if "__eq__" not in cls.__dict__:
            cls.__eq__ = _equal
        if "__hash__" not in cls.__dict__ or cls.__hash__ is None:
            cls.__hash__ = _hash
        cls.__setattr__ = cls.__delattr__ = _refuse
        return cls

    def _init(self, *values, **named):
        known = type(self)._fields
        if len(values) > len(known):
            raise TypeError(f"{type(self).__name__}() takes {len(known)} arguments, and {len(values)} were given")
        mine = self.__dict__
        given = 0
        for name, default in known.items():
            if given < len(values):
                if name in named:
                    raise TypeError(f"{type(self).__name__}() got two values for {name!r}")
                mine[name] = values[given]
                given += 1
            elif name in named:
                mine[name] = named.pop(name)
            elif default is _REQUIRED:
                raise TypeError(f"{type(self).__name__}() misses the argument {name!r}")
            else:
                mine[name] = default.make() if type(default) is _Factory else default
        if named:
            raise TypeError(f"{type(self).__name__}() got an unexpected argument {next(iter(named))!r}")

    def _repr(self):
        inner = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields if name not in self._unshown)
        return f"{type(self).__qualname__}({inner})"

    def _equal(self, other):
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._fields)

    def _hash(self):
        return hash(tuple(getattr(self, name) for name in self._fields))

    def _refuse(self, name, *_value):
        raise FrozenError(f"cannot change field {name!r}: instances of {type(self).__name__} are frozen")

    def fields(thing):
        """The fields of a class or an instance, each with its `name`."""
        return tuple(_Field(name) for name in thing._fields)

    def replace(instance, **changes):
        """A copy with other values."""
        return type(instance)(**{**{name: getattr(instance, name) for name in instance._fields}, **changes})

    def asdict(instance):
        """The fields of an instance as a dictionary, nested instances included."""
        return {name: _plain(getattr(instance, name)) for name in instance._fields}

    def _plain(value):
        if hasattr(type(value), "_unshown"):
            return asdict(value)
        if isinstance(value, (list, tuple)):
            return type(value)(_plain(item) for item in value)
        if isinstance(value, dict):
            return {_plain(key): _plain(item) for key, item in value.items()}
        return value
