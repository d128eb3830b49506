"""Compare what programs read from real configs with and without nemotron-exec.

    python tests/frameworks/compare_configs.py CHECKOUT…

CHECKOUT is a clone of NVIDIA-NeMo/RL, NVIDIA-NeMo/Nemotron or NVIDIA-NeMo/Megatron-Bridge, and is not changed.
nemotron-exec resolves each YAML file of its examples, recipes and conf directories with invented artifacts. Then the
original, with nemotron-exec's resolvers registered, and the resolved file are loaded and compared. The loader is
NeMo-RL's own `load_config` (only that module is imported, from the first checkout that has it), else `OmegaConf.load`.
`yaml.safe_load` is compared, too. Files without artifacts are also compared with a reference added to them or to a
child of them, so that every file goes through the writer.

Prints one line a checkout and one for each file that differs; exits with 1 if any does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.artifacts.reference import Reference
from nemotron_exec.command.words import ConfigArgument
from nemotron_exec.config.config import read
from nemotron_exec.config.evaluate import ARITHMETIC
from nemotron_exec.config.files import Header
from nemotron_exec.config.inherit import parents_named
from nemotron_exec.config.run_section import Injected
from nemotron_exec.document.parse import load as load_document
from nemotron_exec.errors import LaunchError

FOLDERS = ("examples", "tutorials", "src/nemotron/recipes", "src/megatron/bridge", "conf", "research")
ENVIRONMENT = MappingProxyType({"HOME": "/root", "USER": "someone", "PWD": "/work"})
Loader = Callable[[Path], Any]


def main(checkouts: list[str]) -> int:
    """Compare every config of every checkout."""
    failed = False
    loader = next(filter(None, (nemo_rl_loader(Path(checkout)) for checkout in checkouts)), None)
    for checkout in checkouts:
        counts = compare_checkout(Path(checkout), loader)
        failed = failed or bool(counts["differ"] or counts["refused"])
        print(f"{checkout}: " + ", ".join(f"{value} {name}" for name, value in counts.items()))
    return int(failed)


def compare_checkout(checkout: Path, nemo_rl: Loader | None) -> Counter[str]:
    """Compare all configs of a checkout; returns the counts by outcome."""

    def load(path: Path) -> Any:
        # NeMo-RL's loader would take the groups in Hydra's defaults lists for files.
        groups = parents_named(load_document(str(path)), ENVIRONMENT) is None
        return OmegaConf.load(path) if nemo_rl is None or groups else nemo_rl(path)

    counts: Counter[str] = Counter(
        {"files": 0, "equal": 0, "rewritten": 0, "not loadable": 0, "differ": 0, "refused": 0}
    )
    with our_resolvers():
        for path in sorted({path for folder in FOLDERS for path in (checkout / folder).rglob("*.y*ml")}):
            counts["files"] += 1
            counts[compare_file(path, load, counts)] += 1
    return counts


def compare_file(path: Path, load: Loader, counts: Counter[str]) -> str:
    """`equal`, `not loadable` (the original does not load), `differ` or `refused` (an error of nemotron-exec)."""
    try:
        loaded = load(path)
        plain = yaml.safe_load(path.read_text())
    except Exception:  # noqa: BLE001 - the loader may raise anything
        return "not loadable"
    with tempfile.TemporaryDirectory() as directory:
        try:
            result = resolve(path, Path(directory, "as-is"))
            seeded = seed(path, Path(directory))
            if result != path:
                counts["rewritten"] += 1
                expected, found = values(loaded), values(load(result))
                if found != expected:
                    return report(path, expected, found)
            if seeded is not None:
                before = values(load(seeded))
                after = values(load(resolve(seeded, Path(directory, "seeded"))))
                if before != after:
                    return report(path, before, after)
                if "${" not in path.read_text() and "defaults" not in plain:
                    given = yaml.safe_load(resolve(seeded, Path(directory, "seeded")).read_text())
                    if not same_plain(plain, {key: given[key] for key in plain}):
                        return report(path, plain, given)
        except LaunchError as error:
            print(f"  {path}: {error}")
            return "refused"
    return "equal"


def resolve(path: Path, directory: Path) -> Path:
    """The file that the job would get in place of `path`."""
    config = read(
        [ConfigArgument(0, "", str(path), explicit=True)],
        [],
        environ=ENVIRONMENT,
        run_wandb=Injected(),
        resolve="artifacts",
    )
    found = {reference.key: artifact(reference) for reference in config.references}
    rendered = config.render(found, directory=str(directory), header=Header("now"))
    for file in rendered.files:
        Path(file.path).parent.mkdir(parents=True, exist_ok=True)
        Path(file.path).write_bytes(file.text)
    return Path(rendered.arguments.get(0, str(path)))


def seed(path: Path, directory: Path) -> Path | None:
    """A copy of the file, or a child of it if it inherits, with an artifact reference added."""
    text = path.read_text()
    content = yaml.safe_load(text)
    if not isinstance(content, dict) or "run" in content:
        return None
    ours = "run:\n  data: SeedArtifact:v1\nseeded_by_test: ${art:data,path}/x\n"
    seeded = directory / path.name
    if parents_named(load_document(str(path)), ENVIRONMENT) is not None:
        seeded.write_text(f"defaults: {path.resolve()}\n{ours}")
    else:
        seeded.write_text(text + ("" if text.endswith("\n") else "\n") + ours)
    return seeded


def artifact(reference: Reference) -> Artifact:
    """An invented artifact with every field that the recipes ask for."""
    return invented(reference.key)


def invented(key: str) -> Artifact:
    names = (
        "train",
        "val",
        "train_path",
        "val_path",
        "training_path",
        "validation_path",
        "test",
        "blend",
        "blend_path",
    )
    metadata: dict[str, Any] = {name: f"/artifacts/{key}/{name}.jsonl" for name in names}
    return Artifact(
        key,
        f"{key}:v3",
        "manifest",
        key,
        "v3",
        "dataset",
        f"/artifacts/{key}",
        f"{key}:v3",
        10000,
        None,
        {"pack_size": 4096},
        metadata,
    )


@contextlib.contextmanager
def our_resolvers() -> Iterator[None]:
    """Register the resolvers for the originals."""
    OmegaConf.register_new_resolver("art", lambda name, field="path": invented(name).field(field), replace=True)
    OmegaConf.register_new_resolver("auto_mount", lambda *words: "|".join(map(str, words)), replace=True)
    for name, function in ARITHMETIC.items():
        OmegaConf.register_new_resolver(name, lambda a, b, function=function: function(a, b), replace=True)
    os.environ.update(ENVIRONMENT)
    yield


def nemo_rl_loader(checkout: Path) -> Loader | None:
    """`load_config` of the checkout's nemo_rl/utils/config.py."""
    path = checkout / "nemo_rl/utils/config.py"
    if not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location("nemo_rl_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loader: Loader = module.load_config
    return loader


def values(config: Any) -> Any:
    """Every value as a script would get it; the kind of error where the script would get one."""
    if isinstance(config, (DictConfig, ListConfig)):
        keys = list(config) if isinstance(config, DictConfig) else range(len(config))
        found = []
        for key in keys:
            try:
                found.append((str(key), values(config[key])))
            except Exception as error:  # noqa: BLE001 - whatever a resolver raises
                found.append((str(key), type(error).__name__))
        return found
    return repr(config)


def same_plain(one: Any, other: Any) -> bool:
    """Whether two results of `yaml.safe_load` are equal, also in types and key order."""
    return repr(one) == repr(other)


def report(path: Path, expected: Any, found: Any) -> str:
    print(f"  {path}: expected {str(expected)[:300]}, found {str(found)[:300]}")
    return "differ"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
