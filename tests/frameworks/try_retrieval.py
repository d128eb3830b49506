"""Run the embedding and reranking recipes of a Nemotron checkout, unchanged, with and without nemotron-exec.

Usage: try_retrieval.py CHECKOUT [--only NAME] [--stores wandb,manifest] [--python PYTHON] [--work DIRECTORY]

Their scripts call no function of the kit that bears on a launch. Their configs name no artifact and accept no unknown
key, so the command line names the data, by `--artifact` and an override. Each recipe is started, `latest` of its data
moves, and the recipe is started again as its requeue, by torchrun, with one worker. The outcome is printed and compared
as in try_nemotron.py. Without nemotron-exec the recipe gets the path of the newest data.

PYTHON has NeMo Automodel, and by default is the environment `automodel` of tests/support/framework_environments.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import try_nemotron
from try_nemotron import Recipe

from nemotron_exec.sitecustomize.payload.manifest import register

JOB = Path(__file__).resolve().parent / "retrieval_job.py"
WAYS = ("kit", "us")
# embed's script starts a W&B run if the environment asks for one. rerank's does not, so a flush sends its checkpoints.
RECIPES = (
    (Recipe("embed/stage2_finetune", "default", "embed-data", "embed-model", 1), ["lr_warmup_steps=1"], [1, 3, 5]),
    (Recipe("rerank/stage2_finetune", "default", "rerank-data", "rerank-model", 1), [], [0, 1, 2, 3, 5]),
)


class World(try_nemotron.World):
    """One store with the data of a recipe."""

    more = ()

    def add_data(self, name):
        """Add a version."""
        self.generation += 1
        directory = self.work / "data" / f"{name}-{self.generation}"
        shutil.copytree(self.options.work / "data", directory)
        (directory / "generation.txt").write_text(str(self.generation))
        if self.backend is None:
            register.register(str(self.manifests), name, type="dataset", path=str(directory), metadata={})
            return
        files = {str(one.relative_to(directory)): one.read_bytes() for one in directory.rglob("*") if one.is_file()}
        fields = {"path": str(directory), "type": "dataset", "metadata": {}}
        files["metadata.json"] = json.dumps(fields).encode()
        self.backend.seed(f"team/nemotron/{name}", files=files, metadata={})

    def run(self, recipe, iterations, restart):
        """Start the recipe: two epochs, and three as the requeue."""
        record = self.work / f"{recipe.save}-{restart}.json"
        home = self.options.checkout / "src/nemotron/recipes" / recipe.name
        data = "${art:data,path}"
        if self.way == "kit":
            data = str(self.work / "data" / f"{recipe.data}-{self.generation}")
        words = [self.options.python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", str(JOB)]
        words += ["--record", str(record), str(home / "train.py"), "--config", str(home / "config/default.yaml")]
        words += [f"base_model={self.options.work / 'base'}", f"train_data_path={data}/train.json"]
        words += [f"checkpoint_dir={self.work / 'out' / recipe.save}", "local_batch_size=2", "global_batch_size=4"]
        words += [f"num_epochs={2 + restart}", "checkpoint_every_steps=2", "val_every_steps=2", *self.more]
        if self.way == "us":
            named = ["--backend", self.store, "--artifact", f"data={recipe.data}:latest"]
            words = [sys.executable, "-m", "nemotron_exec", *named, "--", *words]
        done = subprocess.run(
            words,
            env=self._environ(recipe, iterations, restart),
            cwd=self.work,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if self.way == "us" and self.backend is not None:
            flush = [sys.executable, "-m", "nemotron_exec.artifact_cli", "flush", str(self.work / "out" / recipe.save)]
            subprocess.run(
                flush, env=self._environ(recipe, iterations, restart), cwd=self.work, check=True, capture_output=True
            )
        text = shlex.join(words) + "\n" + done.stdout + done.stderr
        (self.work / f"{recipe.save}-{restart}.log").write_text(text)
        return done, self._relative(json.loads(record.read_text())) if record.exists() else {}

    def _environ(self, recipe, iterations, restart):
        environ = super()._environ(recipe, iterations, restart)
        return {**environ, "HF_HUB_OFFLINE": "1", "WANDB_ENABLED": str(int(self.backend is not None))}

    def _relative(self, value):
        return (
            [super(World, self)._relative(one) for one in value]
            if isinstance(value, list)
            else super()._relative(value)
        )


def main(options):
    """Run both recipes; returns the exit code."""
    options.extra, options.base, options.port, options.inlined = options.work / "extra", options.work / "base", 0, False
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", options.python]
    subprocess.run([*install, "--target", str(options.extra), "pydantic-settings", "omegaconf", "wandb"], check=True)
    make = [options.python, str(JOB), "--base", str(options.base), "--data", str(options.work / "data")]
    subprocess.run(make, check=True, capture_output=True)
    broken = []
    for recipe, more, iterations in RECIPES:
        if options.only not in recipe.name:
            continue
        worlds = {}
        for store in options.stores.split(","):
            for way in WAYS:
                worlds[store, way] = World(options.work / "-".join((recipe.family, store, way)), store, way, options)
                worlds[store, way].more = more
        broken += try_nemotron.compare(recipe, worlds, iterations)[1]
        for world in worlds.values():
            world.close()
    for fault in broken:
        print("FAIL", fault)
    print("ok" if not broken else f"{len(broken)} promises broken")
    return 1 if broken else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("checkout", type=lambda text: Path(text).resolve())
    parser.add_argument("--only", default="")
    parser.add_argument("--stores", default="wandb,manifest")
    parser.add_argument("--python", type=os.path.abspath)
    parser.add_argument("--work", type=lambda text: Path(text).resolve())
    given = parser.parse_args()
    if given.python is None:
        from framework_environments import python_of

        given.python = python_of("automodel")
    given.work = given.work or Path(tempfile.mkdtemp(prefix="try-retrieval-"))
    sys.exit(main(given))
