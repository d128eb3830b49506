"""The recipes of docs/other-trainers.md, with the packages themselves on the CPU. In CI only."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from framework_environments import python_of
from nemotron_exec.sitecustomize.payload.manifest import listing, read
from places import ROOT

pytestmark = [pytest.mark.ci, pytest.mark.timeout(600)]

PAGE = ROOT / "docs" / "other-trainers.md"

DDP = """
import os, torch
from nemotron_exec import record_checkpoint

torch.distributed.init_process_group("gloo")
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
for step in (1, 2):
    model(torch.ones(1, 2)).sum().backward()
    path = f"runs/ddp/step_{step}"
    os.makedirs(path, exist_ok=True)
RECIPE
torch.distributed.destroy_process_group()
"""
LIGHTNING = """
import lightning, torch
from nemotron_exec import record_checkpoint

class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
    def training_step(self, batch, index):
        return self.layer(batch).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

RECIPE
keep = lightning.pytorch.callbacks.ModelCheckpoint("runs/lightning", save_top_k=-1)
trainer = lightning.Trainer(
    max_epochs=2, accelerator="cpu", devices=1, callbacks=[keep], plugins=[Record()], logger=False,
    enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(Model(), torch.utils.data.DataLoader(torch.ones(4, 2), batch_size=2))
"""
HF_TRAINER = """
import torch, transformers
from nemotron_exec import record_checkpoint

RECIPE
config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=16, n_positions=8)
rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4
transformers.Trainer(
    model=transformers.GPT2LMHeadModel(config),
    args=transformers.TrainingArguments(
        "runs/hf", max_steps=2, save_steps=1, per_device_train_batch_size=1, report_to="none", use_cpu=True,
        disable_tqdm=True,
    ),
    train_dataset=rows,
    callbacks=[Record()],
).train()
"""
ACCELERATE = """
import accelerate, torch
from nemotron_exec import record_checkpoint

accelerator = accelerate.Accelerator(cpu=True)
model = accelerator.prepare(torch.nn.Linear(2, 2))
for step in (1, 2):
    path = f"runs/accelerate/step_{step}"
RECIPE
accelerator.end_training()
"""


def recipe(title):
    """The Python code of a recipe on the page."""
    section = PAGE.read_text().split(f"\n### {title}\n")[1]
    return section.split("```python\n")[1].split("```")[0]


@pytest.fixture
def train(tmp_path, wandb_environ):
    """Run a script under nemotron-exec: `train(TEXT, *WORDS) -> CompletedProcess`."""

    def run(text, *words):
        (tmp_path / "train.py").write_text(text)
        environ = {
            **wandb_environ,
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
            "HF_HUB_OFFLINE": "1",
            "NEMOTRON_EXEC_STORE": str(tmp_path / "store"),
            "NEMOTRON_EXEC_BACKEND": "manifest",
        }
        command = [sys.executable, "-m", "nemotron_exec", "--", python_of("trainers"), *words, "train.py"]
        done = subprocess.run(
            command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert [line for line in done.stderr.splitlines() if "nemotron-exec: warning" in line] == []
        return done

    return run


@pytest.mark.parametrize(
    ("title", "script", "words", "name", "iterations"),
    [
        ("Plain PyTorch with DDP", DDP, ["-m", "torch.distributed.run", "--nproc-per-node=2"], "ddp", [1, 2]),
        ("PyTorch Lightning", LIGHTNING, [], "lightning", [2, 4]),
        ("Trainer of Hugging Face", HF_TRAINER, [], "hf", [1, 2]),
        (
            "Accelerate",
            ACCELERATE,
            ["-m", "accelerate.commands.launch", "--cpu", "--num_processes=2"],
            "accelerate",
            [1, 2],
        ),
    ],
    ids=["ddp", "lightning", "hf", "accelerate"],
)
def test_the_recipe_of_the_page_records_each_checkpoint_once(train, tmp_path, title, script, words, name, iterations):
    in_loop = "    " if "\n    path = " in script else ""
    done = train(script.replace("RECIPE\n", textwrap.indent(recipe(title), in_loop)), *words)
    store = str(tmp_path / "store")
    found = [read.read_version(store, name, number).manifest for number in listing.versions(store, name)]
    assert [one["metadata"]["iteration"] for one in found] == iterations, done.stderr[-2000:]
    for one in found:
        assert one["path"].startswith(str(tmp_path / "runs" / name))
        assert one["metadata"]["framework"] == "script"
