"""A training process for the tests of faults, with Megatron-Bridge's callback and the real wandb.

`Trainer.start()` runs this file as a program. It reads commands from stdin, one a line, and answers each with one line
on stdout, so that a test can act between two of them:

    save N         write a checkpoint and call Megatron-Bridge's callback, as its save_checkpoint does
    write N        only write the checkpoint
    complete N     only call the callback
    transient N    save a checkpoint that Megatron-Bridge will delete itself
    record N NAME  call record_checkpoint(…, name=NAME), as a script does
    finish         wandb.finish()
    raise          leave by an exception
    exit [CODE]    sys.exit
    slow SECONDS   the main thread is busy inside the C library, as in a collective
    stuck          the main thread never comes back, as in a collective whose other ranks are gone
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


class Trainer:
    """A running trainer."""

    def __init__(self, process):
        self.process = process
        self.answers = queue.Queue()
        self.stderr = []
        self._readers = [
            threading.Thread(target=self._read, args=(process.stdout, self.answers.put), daemon=True),
            threading.Thread(target=self._read, args=(process.stderr, self.stderr.append), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @classmethod
    def start(cls, environ, *, wandb=False, python=sys.executable):
        trainer = cls(cls.popen(environ, wandb=wandb, python=python))
        trainer.answer("ready")
        return trainer

    @staticmethod
    def popen(environ, *, wandb=False, python=sys.executable):
        """Start the program, without waiting until it is ready."""
        return subprocess.Popen(
            [python, __file__, *(["--wandb"] if wandb else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )

    def say(self, command):
        """Give a command, without waiting."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def do(self, command):
        """Give a command, and wait until it is done."""
        self.say(command)
        return self.answer("done")

    def answer(self, word, timeout=120):
        """Wait for an answer that begins with `word`. wandb and the framework print the other lines."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self.answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"no answer {word!r}; stderr:\n{self.errors()}") from None
            if line.startswith(word):
                return line[len(word) :].strip()

    def end(self, timeout=120):
        """Wait until the trainer has ended; returns its exit code."""
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(10)
        return code

    def errors(self):
        """All of stderr so far."""
        return "\n".join(self.stderr)

    def ours(self):
        """nemotron-exec's lines on stderr."""
        return [line for line in self.stderr if line.startswith("nemotron-exec:")]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                stream.close()

    @staticmethod
    def _read(stream, put):
        for line in stream:
            put(line.rstrip("\n"))


def main():
    sys.path.insert(0, str(HERE / "frameworks"))
    import megatron_module

    module = megatron_module.light()
    if "nemotron_exec_injected" not in os.environ:
        from nemotron_exec.sitecustomize.payload.patches import megatron_bridge

        megatron_bridge.apply(module)
    writer = None
    if "--wandb" in sys.argv:
        import wandb

        if "TRAINER_LINEAGE" in os.environ:
            from nemotron_exec.sitecustomize.payload.patches import lineage

            lineage.apply(sys.modules["wandb.sdk.wandb_init"])
        wandb.init(project="nemotron", entity="team", settings=wandb.Settings(console="off", silent=True))
        writer = wandb
    print("ready", flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        if command in ("save", "write", "complete", "transient"):
            save_dir = os.path.join(os.environ["SAVE_DIR"], *["non_persistent"] * (command == "transient"))
            path = os.path.join(save_dir, f"iter_{int(arguments[0]):07d}")
            if command != "complete":
                os.makedirs(path, exist_ok=True)
                Path(path, "common.pt").write_text("weights")
            if command == "write":
                print("done", flush=True)
                continue
            began = time.perf_counter()
            module.on_save_checkpoint_success(path, save_dir, int(arguments[0]), writer)
            print("done", time.perf_counter() - began, flush=True)
        elif command == "record":
            from nemotron_exec.sitecustomize.payload.api import checkpoint

            number, name = arguments
            path = Path(os.environ["SAVE_DIR"]).parent / "other" / f"step_{number}"
            path.mkdir(parents=True)
            (path / "model.pt").write_text("weights")
            print("done", checkpoint.record_checkpoint(path, name=name), flush=True)
        elif command == "finish":
            writer.finish()
            print("done", flush=True)
        elif command == "raise":
            raise RuntimeError("out of data")
        elif command == "exit":
            sys.exit(int(arguments[0]) if arguments else 0)
        elif command == "slow":
            import ctypes

            print("done", flush=True)
            # This call releases the GIL and restarts after a signal, like a collective.
            remaining = time.monotonic() + float(arguments[0])
            while time.monotonic() < remaining:
                ctypes.CDLL(None).usleep(1000000)
        elif command == "stuck":
            import ctypes

            mutex = ctypes.create_string_buffer(64)  # PTHREAD_MUTEX_INITIALIZER
            threading.Thread(target=_say_when_it_waits_for, args=(ctypes.addressof(mutex),), daemon=True).start()
            for _ in range(2):
                ctypes.CDLL(None).pthread_mutex_lock(mutex)


def _say_when_it_waits_for(address):
    """Print `done` once the main thread is inside the call. Before that, Python's own handlers still run."""
    while True:
        with open(f"/proc/self/task/{os.getpid()}/syscall") as file:
            if hex(address) in file.read().split():
                break
        time.sleep(0.01)
    print("done", flush=True)


if __name__ == "__main__":
    main()
