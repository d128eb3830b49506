"""Run the training recipes of a Nemotron checkout, unchanged, with and without nemotron-exec, and compare.

Usage: try_nemotron.py CHECKOUT [--nemo-rl CHECKOUT] [--only PATTERN] [--stores wandb,manifest] [--ways kit,both,us]
                       [--python PYTHON] [--work DIRECTORY] [--inlined]

Three ways: the kit alone, the kit under nemotron-exec, nemotron-exec alone (the kit's calls do nothing). Two stores:
W&B (the double of tests/wandb_backend with the real client) and manifests. Each recipe is started, `latest` of its data
moves, and the recipe is started again as its requeue. Prints a row for each recipe, and exits with 1 if a promise is
broken.

`--inlined` starts main.py, which the Nemotron CLI sends to a cluster and into which its packager has written the kit.
PYTHON has Megatron-Bridge, and by default is the environment `pretrain` of tests/support/framework_environments.py.
typer and pydantic-settings, which the kit imports, are installed into the work directory. The checkout is not changed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "support")]

from wandb_backend import Backend  # noqa: E402

JOB = ROOT / "tests" / "frameworks" / "nemotron_job.py"
WAYS = {"kit": "the kit alone", "both": "the kit under nemotron-exec", "us": "nemotron-exec alone"}


class Recipe(NamedTuple):
    """One stage of a family.

    Attributes:
        name: The recipe's directory below src/nemotron/recipes.
        config: The file in its config/, without the suffix.
        data: The data artifact that the recipe names, as data preparation stores it; empty without one.
        save: The name of its checkpoints.
        inputs: The number of artifacts that its config names.
        model: The checkpoint that it starts from, if no earlier recipe here makes it.
        overrides: Values for the recipe's placeholders, which the user has to give.
    """

    name: str
    config: str
    data: str
    save: str
    inputs: int = 1
    model: str = ""
    overrides: tuple[str, ...] = ()

    @property
    def family(self):
        return self.name.partition("/")[0]

    @property
    def is_shell(self):
        """Whether train.py starts a shell script of another repository."""
        return self.name.startswith("omni3/stage1_rl")

    @property
    def is_sft(self):
        return "_sft" in self.name

    @property
    def is_rl(self):
        return "_rl" in self.name and not self.is_shell


_TINY, _SFT = ("run.model=nano3-sft-model:latest",), "super3-sft-model"
_PLACEHOLDERS = ("data.train_jsonl_fpath={data}/train.jsonl", "data.validation_jsonl_fpath={data}/train.jsonl")
_RL = "super3/stage2_rl"
RECIPES = (
    Recipe("nano3/stage0_pretrain", "default", "nano3-pretrain-data", "nano3-pretrain-model"),
    Recipe("nano3/stage1_sft", "default", "nano3-sft-data", "nano3-sft-model", 2),
    Recipe("nano3/stage2_rl", "tiny", "nano3-rl-data-tiny", "nano3-rl-model", 2, "nano3-sft-model", _TINY),
    Recipe("super3/stage0_pretrain", "phase1", "super3-pretrain-data-phase1", "super3-pretrain-model"),
    Recipe("super3/stage1_sft", "default", "super3-sft-data", "super3-sft-model", 2),
    Recipe(f"{_RL}", "default", "super3-rl-data", "super3-rl-model", 2, _SFT, _PLACEHOLDERS),
    Recipe(f"{_RL}/stage1_rlvr", "default", "super3-rl-rlvr1-data", "super3-rl-rlvr-model", 2, _SFT),
    Recipe(f"{_RL}/stage2_swe1", "default", "super3-rl-swe1-data", "super3-rl-swe1-model", 2, _SFT),
    Recipe(f"{_RL}/stage2_swe2", "default", "super3-rl-swe2-data", "super3-rl-swe2-model", 2, _SFT),
    Recipe(f"{_RL}/stage3_rlhf", "default", "super3-rl-rlhf-data", "super3-rl-rlhf-model", 2, _SFT),
    Recipe("lightning35/stage0_pretrain", "default", "lightning35-pretrain-data", "lightning35-pretrain-model"),
    Recipe("lightning35/stage1_sft", "default", "lightning35-sft-data", "lightning35-sft-model", 2),
    Recipe(
        "lightning35/stage2_rl", "default", "lightning35-rl-data", "lightning35-rl-model", 2, "lightning35-sft-model"
    ),
    Recipe("omni3/stage0_sft", "default", "", "omni3-sft-model", 0),
    Recipe("omni3/stage1_rl/stage1_mpo", "default", "omni3-rl-mpo-data", "omni3-rl-mpo-model", 2, "omni3-sft-model"),
    Recipe(
        "omni3/stage1_rl/stage2_text_rl",
        "default",
        "omni3-rl-text-data",
        "omni3-rl-text-model",
        2,
        "omni3-rl-mpo-model",
    ),
    Recipe(
        "omni3/stage1_rl/stage3_vision_rl",
        "default",
        "omni3-rl-vision-data",
        "omni3-rl-vision-model",
        2,
        "omni3-rl-text-model",
    ),
    Recipe("ultra3/stage0_pretrain", "default", "ultra3-pretrain-data-phase1", "ultra3-pretrain-model"),
    Recipe("ultra3/stage1_sft", "default", "ultra3-sft-data", "ultra3-sft-model"),
)
_FILES = {
    "blend.json": b'{"train": []}',
    "train/part.parquet": b"PAR1",
    "train/train-split.jsonl": b"{}\n",
    "train.jsonl": b"{}\n",
    "val/val-split.jsonl": b"{}\n",
}


class World:
    """One store with the data of a family, in which its stages run one after the other."""

    def __init__(self, work, store, way, options):
        self.work, self.store, self.way, self.options = work, store, way, options
        work.mkdir(parents=True)
        self.backend = Backend() if store == "wandb" else None
        self.manifests = work / "manifests"
        self.generation = 0

    def close(self):
        if self.backend is not None:
            self.backend.close()

    def add_data(self, name):
        """Add a version of a data artifact, so that `latest` moves."""
        self.generation += 1
        files = {**_FILES, "generation.txt": b"%d" % self.generation}
        directory = self.work / "data" / f"{name}-{self.generation}"
        for file, content in files.items():
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            (directory / file).write_bytes(content)
        files_of = {name: str(directory / "train.jsonl") for name in ("train", "val")}
        metadata = {"pack_size": 16, "generation": self.generation, **files_of}
        if self.backend is not None:
            fields = {"path": str(directory), "type": "dataset", "metadata": metadata}
            files["metadata.json"] = json.dumps(fields).encode()
            self.backend.seed(f"team/nemotron/{name}", files=files, metadata=metadata)
            return
        from nemotron_exec.sitecustomize.payload.manifest import register

        register.register(str(self.manifests), name, type="dataset", path=str(directory), metadata=metadata)

    def add_model(self, name):
        """Add a checkpoint of the previous stage unless that stage has run here. RL only links to its files."""
        if self.versions(name):
            return
        save = self.work / "out" / name
        (save / "iter_0000004").mkdir(parents=True, exist_ok=True)  # the kit may have saved it without registering it
        (save / "iter_0000004" / "weights").write_text("w")
        metadata = {"absolute_path": str(save), "iteration": 4}
        if self.backend is not None:
            fields = {"path": str(save), "type": "model", "iteration": 4, "absolute_path": str(save), "metadata": {}}
            files = {"metadata.json": json.dumps(fields).encode()}
            self.backend.seed(f"team/nemotron/{name}", files=files, metadata=metadata, type="model")
            return
        from nemotron_exec.sitecustomize.payload.manifest import register

        register.register(str(self.manifests), name, type="model", path=str(save), metadata=metadata)

    def run(self, recipe, iterations, restart):
        """Start the recipe; returns the finished process and the recipe's values."""
        record = self.work / f"{recipe.save}-{restart}.json"
        words = [self.options.python, str(JOB), "--record", str(record)]
        if self.way == "us":
            words.append("--without-kit")
        if recipe.is_rl:
            words += ["--nemo-rl", str(self.options.nemo_rl)]
        if recipe.is_shell:
            words.append("--no-framework")
        script = self.options.checkout / "src/nemotron/recipes" / recipe.name / "train.py"
        if self.options.inlined:
            script = self._inlined(script, recipe)
        if recipe.is_shell:
            self._write_shell_script(recipe, script, record)
        words += [str(script), "--config", str(self._config(recipe, script)), *self._overrides(recipe)]
        if self.way != "kit":
            backend = ["--backend", self.store] if self.store == "manifest" else []
            words = [sys.executable, "-m", "nemotron_exec", *backend, "--", *words]
        began = time.monotonic()
        done = subprocess.run(
            words,
            env=self._environ(recipe, iterations, restart),
            cwd=self.work,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        seconds = f"{time.monotonic() - began:.0f} s\n"
        (self.work / f"{recipe.save}-{restart}.log").write_text(
            shlex.join(words) + "\n" + seconds + done.stdout + done.stderr
        )
        values = json.loads(record.read_text()) if record.exists() else {}
        return done, self._relative(values)

    def _config(self, recipe, script):
        """The recipe's config; with the kit, as the CLI writes it for a job (nemo_runspec's loader)."""
        original = script.parent / "config" / f"{recipe.config}.yaml"
        if self.way == "us":
            return original
        wandb = {"project": "nemotron", "entity": "team"} if self.store == "wandb" else {}
        artifacts = {"wandb": True} if self.store == "wandb" else {"manifest": {"root": str(self.manifests)}}
        copy = self.work / f"{recipe.save}.yaml"
        code = (
            "import json, sys, pathlib\n"
            "from omegaconf import OmegaConf\n"
            "from nemo_runspec.config import loader\n"
            "job = loader.load_config(pathlib.Path(sys.argv[1]))\n"
            "job = OmegaConf.merge(job, json.loads(sys.argv[3]))\n"
            "whole = sys.argv[4] == 'whole'\n"
            "train = job if whole else loader.extract_train_config(job)\n"
            # Add names with slashes again: the loader takes them for images and drops them.
            "named = {key: text for key, text in job.run.items() if isinstance(text, str)}\n"
            "OmegaConf.save(OmegaConf.merge(train, {'run': named}), sys.argv[2])\n"
        )
        more = json.dumps({"run": {"wandb": wandb}, "artifacts": artifacts})
        # omni3's RL scripts read `run.env`, which the CLI's own loader drops, so they get the whole config.
        self._in_checkout(code, original, copy, more, "whole" if recipe.is_shell else "train")
        return copy

    def _inlined(self, script, recipe):
        """Inline a script with the CLI's packager. Its config directory lies beside the result."""
        main = self.work / recipe.save / "main.py"
        main.parent.mkdir(exist_ok=True)
        code = (
            "import sys, types, pathlib, dataclasses\n"
            "for name in ('nemo_run', 'nemo_run.core', 'nemo_run.core.packaging'):\n"
            "    sys.modules[name] = types.ModuleType(name)\n"
            "sys.modules[name].Packager = dataclasses.make_dataclass('Packager', [], kw_only=True)\n"
            "from nemo_runspec.packaging.self_contained_packager import inline_imports\n"
            "entry, root, main = map(pathlib.Path, sys.argv[1:])\n"
            "only = {'package_prefix': 'nemotron'} if '_rl' in str(entry) else {}\n"  # cli/commands/nano3/rl.py
            "main.write_text(inline_imports(entry, repo_root=root, **only))\n"
        )
        self._in_checkout(code, script, self.options.checkout, main)
        if not (main.parent / "config").exists():
            (main.parent / "config").symlink_to(script.parent / "config")
        return main

    def _in_checkout(self, code, *arguments):
        """Run some lines of Python with the checkout's own packages."""
        words = [self.options.python, "-c", code, *map(str, arguments)]
        path = os.pathsep.join([str(self.options.checkout / "src"), str(self.options.extra)])
        subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": path})

    def _overrides(self, recipe):
        data = self.work / "data" / f"{recipe.data}-1"
        said = [text.format(data=data) for text in recipe.overrides]
        if recipe.is_shell:
            return said
        if recipe.is_rl:
            said.append(f"checkpointing.checkpoint_dir={self._save(recipe)}")
            said.append(f"logger.wandb_enabled={'true' if self.store == 'wandb' else 'false'}")
            if self.store == "wandb" and recipe.family in ("super3", "lightning35"):
                said.append("logger.wandb.project=nemotron")  # the recipe says grpo-dev
            # The kit's call sets this name. lightning35's script makes no such call without W&B.
            if self.way == "us" or (self.way, self.store, recipe.family) == ("both", "manifest", "lightning35"):
                said.append(f"+run.publish={recipe.save}")
            return said
        said.append(f"checkpoint.save={self._save(recipe)}")
        if self.way == "us" and recipe.family == "lightning35":
            said.append("run.env.mounts=[]")  # only the CLI's loader knows ${auto_mount:…}
        if self.store == "manifest" and (self.way == "kit" or recipe.family == "ultra3"):
            said += ["logger.wandb_project=null", "logger.wandb_entity=null"]  # ultra3 has a project of its own
        elif recipe.family == "omni3" and self.store == "wandb":
            said += ["logger.wandb_project=nemotron", "logger.wandb_entity=team"]  # the recipe has none
        return said

    def _save(self, recipe):
        """The save directory. RL scripts name their checkpoints themselves, for any directory."""
        return self.work / "out" / recipe.save / ("results" if recipe.is_rl else "")

    def _write_shell_script(self, recipe, script, record):
        """Write the script that omni3's RL recipes start: the checkout lacks it, since it is on a branch of NeMo-RL."""
        config = (script.parent / "config" / f"{recipe.config}.yaml").read_text()
        path = self.work / "nemo-rl-omni" / re.search(r"command: bash (\S+)", config)[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        words = [self.options.python, str(JOB), "--record", str(record), "--nemo-rl", str(self.options.nemo_rl)]
        path.write_text(shlex.join([*words, "--save", str(self._save(recipe))]) + "\n")

    def _environ(self, recipe, iterations, restart):
        path = [str(self.options.checkout / "src"), str(self.options.extra)]
        home = self.work / "home"
        environ = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "TMPDIR": str(self.work),
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
            "TRY_ITERATIONS": str(iterations),
            "SLURM_JOB_ID": "4242",
            "SLURM_RESTART_COUNT": str(restart),
            "HF_MODEL_PATH": str(self.options.base),
            "PRETRAINED_CHECKPOINT": str(self.options.base),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.options.port),
            "USER": "trainer",
            "OMNI3_RL_ROOT": str(self.work / "nemo-rl-omni"),
            "TRY_STORE": self.store,
        }
        home.mkdir(exist_ok=True)
        if self.way != "kit":
            environ["NEMO_ARTIFACT_ROOT"] = str(self.manifests)
        if self.backend is not None:
            environ.update(self.backend.environ(home), WANDB_PROJECT="nemotron", WANDB_ENTITY="team")
            environ["HOME"] = str(home)
        return environ

    def _relative(self, value):
        if isinstance(value, dict):
            return {key: self._relative(one) for key, one in value.items()}
        if not isinstance(value, str):
            return value
        for parent in (Path(value), *Path(value).parents) if value.startswith("/") else ():
            # The kit and the launcher download to different places. Compare the file and its version, not the path.
            if (parent / "generation.txt").is_file():
                version = (parent / "generation.txt").read_text()
                return f"(version {version} of the data)/{Path(value).relative_to(parent)}"
        return value.replace(str(self.work), "")

    def versions(self, name):
        """The iterations of an artifact's versions in the store of this world, in order."""
        if self.backend is not None:
            project = self.backend.model.entities["team"].get("nemotron")
            collection = project and project.collections.get(name)
            found = [version.metadata or {} for version in collection.versions] if collection else []
        else:
            from nemotron_exec.sitecustomize.payload.manifest import listing, read

            root = str(self.manifests)
            numbers = listing.versions(root, name) if name in listing.names(root) else []
            found = [read.read_version(root, name, number, skip_gone=False).manifest["metadata"] for number in numbers]
        return [one.get("iteration", one.get("step")) for one in found]

    def models(self):
        """The names of all models in the store."""
        if self.backend is not None:
            projects = self.backend.model.entities["team"].values()
            found = [one for project in projects for one in project.collections.values()]
            return {one.name for one in found if one.versions and one.type == "model"}
        from nemotron_exec.sitecustomize.payload.manifest import listing

        return {name for name in listing.names(str(self.manifests)) if not name.partition("-data")[1]}

    def edges(self, since):
        """The inputs that runs have recorded since the operation of that index, and the number of look-ups."""
        if self.backend is None:
            return [], 0
        log = self.backend.log[since:]
        used = [one for one in log if "UseArtifact" in one.name]
        versions = self.backend.model.versions
        ids = [str((one.variables.get("input") or one.variables).get("artifactID")) for one in used]
        names = [versions[one].qualified_name if one in versions else one for one in ids]
        return names, sum("ArtifactMembershipByName" in one.name or "ProjectArtifact" in one.name for one in log)


def start_twice(recipe, world):
    """Start the recipe, move `latest` of its data, start it again; returns the observations and both processes."""
    if recipe.data:
        world.add_data(recipe.data)
    if recipe.model:
        world.add_model(recipe.model)
    before, seen, done = world.models(), [], []
    for restart, iterations in enumerate((4, 6)):
        since = len(world.backend.log) if world.backend else 0
        process, values = world.run(recipe, iterations, restart)
        edges, look_ups = world.edges(since)
        # On resuming, Megatron-Bridge itself records the checkpoint that it loads. Do not count that edge.
        edges = sorted(name for name in edges if f"/{recipe.save}:" not in name)
        seen.append({"exit": process.returncode, "values": values, "edges": edges, "look-ups": look_ups})
        done.append(process)
        if recipe.data and not restart:
            world.add_data(recipe.data)
    names = sorted(world.models() - before)
    return {"starts": seen, "names": names, "versions": world.versions(recipe.save)}, done


def compare(recipe, worlds, iterations=(2, 4, 6)):
    """The outcome of a recipe in each world, and the promises that are broken."""
    outcomes, broken = {}, []
    for (store, way), world in worlds.items():
        outcomes[store, way], done = start_twice(recipe, world)
        outcome = outcomes[store, way]
        print(f"{recipe.name}  {store}  {WAYS[way]}\n  {json.dumps(outcome)}", flush=True)
        for process in done:
            if process.returncode:
                print("  " + "\n  ".join((process.stdout + process.stderr).strip().splitlines()[-4:]), flush=True)
        if way == "kit":
            continue
        first, second = outcome["starts"]
        names = {recipe.save, *([f"{recipe.save}-hf"] if recipe.family == "super3" and recipe.is_sft else [])}
        promises = {
            "both starts end well": [first["exit"], second["exit"]] == [0, 0],
            "the requeue is given what the first start was": first["values"] == second["values"] != {},
            "the checkpoints have one name": set(outcome["names"]) - {f"{recipe.save}-hf"}
            == names - {f"{recipe.save}-hf"},
            "one version a checkpoint": outcome["versions"] == list(iterations),
        }
        for name, one in (("first start", first), ("requeue", second)) if store == "wandb" else ():
            edges = one["edges"]
            promises[f"one edge an input, {name}"] = len(edges) == len(set(edges)) == recipe.inputs
        kit = outcomes.get((store, "kit"))
        if kit and kit["starts"][0]["exit"] == 0:
            promises["the kit's values"] = first["values"] == kit["starts"][0]["values"]
            promises["the kit's names"] = not kit["names"] or set(kit["names"]) == set(outcome["names"])
        broken += [f"{recipe.name}, {store}, {WAYS[way]}: {promise}" for promise, held in promises.items() if not held]
    return outcomes, broken


def _cell(outcome):
    first, second = outcome["starts"]
    edges = "edges {}, {}".format(len(first["edges"]), len(second["edges"]))
    return f"exit {first['exit']}, {second['exit']}; {outcome['versions']}; {edges}; look-ups {second['look-ups']}"


def _make_base(options):
    """Make a checkpoint for recipes that take its path from the environment."""
    options.base = options.work / "base"
    if options.base.exists():
        return
    script = str(JOB.parent / "pretrain_tiny_gpt.py")
    words = [options.python, script, str(options.base), "--iterations", "2", "--every", "2"]
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "MASTER_PORT": str(options.port)})


def main(options):
    """Run all recipes; returns the exit code."""
    options.extra = options.work / "extra"
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", options.python]
    subprocess.run([*install, "--target", str(options.extra), "typer", "pydantic-settings"], check=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        options.port = listener.getsockname()[1]
    _make_base(options)
    worlds, broken, rows = {}, [], []
    for recipe in RECIPES:
        needs_nemo_rl = recipe.is_rl or recipe.is_shell
        if not re.search(options.only, recipe.name) or (needs_nemo_rl and options.nemo_rl is None):
            continue
        for store in options.stores.split(","):
            for way in options.ways.split(","):
                key = recipe.family, store, way
                if key not in worlds:
                    worlds[key] = World(options.work / "-".join(key), store, way, options)
        here = {key[1:]: world for key, world in worlds.items() if key[0] == recipe.family}
        outcomes, faults = compare(recipe, here)
        broken += faults
        rows.append((recipe, outcomes))
    for world in worlds.values():
        world.close()
    print()
    for recipe, outcomes in rows:
        cells = [f"{store}, {way}: {_cell(one)}" for (store, way), one in outcomes.items()]
        print(f"| {recipe.name} | " + " | ".join(cells) + " |")
    for fault in broken:
        print("FAIL", fault)
    print("ok" if not broken else f"{len(broken)} promises broken")
    return 1 if broken else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("checkout", type=lambda text: Path(text).resolve())
    parser.add_argument("--nemo-rl", type=lambda text: Path(text).resolve())
    parser.add_argument("--only", default="")
    parser.add_argument("--stores", default="wandb,manifest")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--python", type=os.path.abspath)
    parser.add_argument("--inlined", action="store_true")
    parser.add_argument("--work", type=lambda text: Path(text).resolve())
    given = parser.parse_args()
    if given.python is None:
        from framework_environments import python_of

        given.python = python_of("pretrain")
    given.work = given.work or Path(tempfile.mkdtemp(prefix="try-nemotron-"))
    sys.exit(main(given))
