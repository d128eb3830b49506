"""The parts of a wrapped command, as plain data: launcher, program, config arguments, overrides."""

from __future__ import annotations

from nemotron_exec.command.override import Override
from nemotron_exec.command.wrappers import Surroundings
from nemotron_exec.frozen import dataclass, field

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Command", "ConfigArgument", "ElasticLauncher", "replace_paths", "word_at"]


@dataclass(frozen=True)
class ElasticLauncher:
    """torchrun or a look-alike, as the command calls it.

    Attributes:
        kind: "torchrun" (also `python -m torch.distributed.run`) or "ft_launcher".
        options: Its options by name with underscores and without dashes (`node_rank`), as written; "" for a flag.
            `PET_*` variables are not merged in: rank.py ranks the two sources.
    """

    kind: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfigArgument:
    """One argument of the command that names a YAML file.

    Attributes:
        index: Position in argv of the word to be replaced.
        prefix: The text of the word before the path: "" or `--config=`.
        path: The path, as the launcher finds it: below the directory that the command changes to.
        written: The path as written; it differs from `path` where a wrapper changes the directory.
        suffix: The text of the word after the path: a further file, of `--config=a.yaml,b.yaml`.
        explicit: Whether `-c` names it.
        hydra: For a Hydra program, whose `path` is D/N.yaml: the index of the word that holds D. It is -1 where no word
            holds D; then `--config-path` is added after the word at `index`, which is `prefix`. None for a plain file
            argument.
        directory: D, for a Hydra program: the groups of N are folders in it.
        tentative: Whether only the program's source names it. Such a config counts only if it names an artifact
            (config/hydra.py, `without_silent`).
    """

    index: int
    prefix: str
    path: str
    hydra: int | None = None
    directory: str = ""
    written: str | None = None
    suffix: str = ""
    explicit: bool = False
    tentative: bool = False


def replace_paths(replaced: Sequence[tuple[ConfigArgument, str]]) -> str:
    """The new word for several configs in one word, each with its new path."""
    first = replaced[0][0]
    word = first.prefix + (first.path if first.written is None else first.written) + first.suffix
    for argument, path in sorted(replaced, key=lambda pair: -len(pair[0].prefix)):
        start = len(argument.prefix)
        end = start + len(argument.path if argument.written is None else argument.written)
        word = word[:start] + path + word[end:]
    return word


@dataclass(frozen=True)
class Command:
    """The wrapped command, read.

    Attributes:
        argv: All its words, untouched.
        launcher: torchrun or a look-alike, if the command starts one.
        program: Index of the training script, module or program; `len(argv)` if there is none.
        configs: The arguments that name configs, in order.
        overrides: The overrides among the words after the program, in order.
        around: The surroundings that the wrappers in front of the program change.
        silent: Configs that only the source of a Hydra program names, and that name no artifact.
    """

    argv: tuple[str, ...]
    launcher: ElasticLauncher | None
    program: int
    configs: tuple[ConfigArgument, ...]
    overrides: tuple[Override, ...]
    around: Surroundings = Surroundings()
    silent: tuple[ConfigArgument, ...] = ()

    @property
    def relative(self) -> tuple[str, ...]:
        """The words from the program on, which are the same on every node."""
        return self.argv[self.program :]


def word_at(words: Sequence[str], index: int) -> str | None:
    """The word at an index; None behind the last one."""
    return next(iter(words[index : index + 1]), None)
