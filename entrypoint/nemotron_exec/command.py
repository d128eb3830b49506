"""Step 1, read: what the wrapped command says about its launcher, its config files and their overrides.

The command is only looked at. What is replaced in it later is the config argument, by its index; nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Command", "ConfigArgument", "ElasticLauncher"]


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
        prefix: What stands before the path in that word: "" or `--config=`.
        path: The path as written.
        hydra: For Hydra's `--config-path D --config-name N`: the index of the word that holds D (or -1 where the
            directory is not given on the command line), and `path` is then D/N.yaml; None for a plain file argument.
    """

    index: int
    prefix: str
    path: str
    hydra: int | None = None


@dataclass(frozen=True)
class Command:
    """The wrapped command, read.

    Attributes:
        argv: All its words, untouched.
        launcher: torchrun or a look-alike, if the command starts one.
        program: Index of the training script, module or program; `len(argv)` if there is none.
        configs: The arguments that name configs, in order.
        overrides: Indices of the words after the program that read as overrides (`a.b=1`, `+a=1`, `++a=1`, `~a`).
    """

    argv: tuple[str, ...]
    launcher: ElasticLauncher | None
    program: int
    configs: tuple[ConfigArgument, ...]
    overrides: tuple[int, ...]
