"""A language model small enough for two CPU processes, in plain PyTorch. Both example scripts use it."""

from __future__ import annotations

import json
import os

import torch
import torch.distributed as dist
from megatron_callback import on_save_checkpoint_success
from torch.nn.parallel import DistributedDataParallel

VOCABULARY = 256  # bytes


class TinyLM(torch.nn.Module):
    """Byte embedding, one GRU, one projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(VOCABULARY, width)
        self.mix = torch.nn.GRU(width, width, batch_first=True)
        self.head = torch.nn.Linear(width, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, time) token ids to (batch, time, VOCABULARY) logits."""
        return self.head(self.mix(self.embed(tokens))[0])


def start(seed: int) -> int:
    """Join the process group; returns the rank."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    dist.init_process_group("gloo")
    return dist.get_rank()


def say(text: str) -> None:
    """Print on rank 0."""
    if dist.get_rank() == 0:
        print(text, flush=True)


def read_tokens(blend_path: str) -> torch.Tensor:
    """The bytes of every file that a blend.json names, in one row."""
    say(f"reading {blend_path}")
    with open(blend_path) as file:
        names = json.load(file)["train"]
    text = b""
    for name in names:
        path = os.path.join(os.path.dirname(blend_path), name)
        say(f"reading {path}")
        with open(path, "rb") as file:
            text += file.read()
    return torch.tensor(list(text), dtype=torch.long)


def train(model: TinyLM, tokens: torch.Tensor, *, seq_length: int, steps: int, save: str, every: int) -> None:
    """Train for `steps` steps, with a checkpoint every `every` steps, laid out as Megatron-Bridge does."""
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(parallel.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1234 + dist.get_rank())
    for step in range(1, steps + 1):
        starts = torch.randint(0, len(tokens) - seq_length - 1, (4,), generator=generator).tolist()
        batch = torch.stack([tokens[at : at + seq_length + 1] for at in starts])
        logits = parallel(batch[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), batch[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 5 == 0:
            say(f"step {step}: loss {loss.item():.3f}")
        if step % every == 0:
            save_checkpoint(model, save, step)


def save_checkpoint(model: TinyLM, save: str, step: int) -> None:
    """Write `save`/iter_NNNNNNN; the last rank then calls the framework's callback, as Megatron-Bridge does."""
    directory = os.path.join(save, f"iter_{step:07d}")
    if dist.get_rank() == 0:
        os.makedirs(directory, exist_ok=True)
        torch.save(model.state_dict(), os.path.join(directory, "model.pt"))
        with open(os.path.join(save, "latest_checkpointed_iteration.txt"), "w") as file:
            file.write(str(step))
    dist.barrier()
    say(f"saved {directory}")
    if dist.get_rank() == dist.get_world_size() - 1:
        on_save_checkpoint_success(directory, save, step, None)


def load_checkpoint(model: TinyLM, save: str) -> None:
    """Read the weights of the iteration that the tracker file names, as Megatron-Bridge does."""
    with open(os.path.join(save, "latest_checkpointed_iteration.txt")) as file:
        step = int(file.read())
    path = os.path.join(save, f"iter_{step:07d}", "model.pt")
    say(f"reading {path}")
    model.load_state_dict(torch.load(path, weights_only=True))
