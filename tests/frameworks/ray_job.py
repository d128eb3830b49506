"""A training program on Ray, with a local cluster of its own: `ray_job.py DIRECTORY SCENARIO [config]`.

It handles the environment as NeMo-RL does (nemo_rl/distributed/virtual_cluster.py, worker_groups.py). It removes the
schedulers' variables from the driver and passes all others to the cluster as `runtime_env`, and a worker group prepends
a directory of its own to PYTHONPATH. It prints one line of JSON.

    tells       a task and an actor report the job's environment
    saves       actors save with NeMo-RL's CheckpointManager, and with Megatron-Bridge inside it and alone
    dies        actors save with a W&B run each, and then die in every way that Ray knows
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
DOUBLES = os.path.join(os.path.dirname(HERE), "doubles", "nemo_rl_main")


def start(ray: Any, scratch: str) -> None:
    """Start a cluster of one node. Ray's raylet has a fixed bound of 30 s, so try again on a busy machine."""
    for left in reversed(range(4)):
        try:
            ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=False,
                configure_logging=False,
                runtime_env={"env_vars": dict(os.environ)},
                _temp_dir=scratch,
            )
        except Exception as error:
            if "timed out during startup" not in str(error) or not left:
                raise
            ray.shutdown()
        else:
            return


def main() -> None:
    directory, scenario = sys.argv[1:3]
    for name in list(os.environ):
        if name.startswith(("PMIX_", "PMI_", "MPI_", "OMPI_", "SLURM_")):
            del os.environ[name]
    import ray

    # Ray makes sockets there, and their paths have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as scratch:
        start(ray, scratch)
        try:
            answer = {"tells": tells, "saves": saves, "dies": dies}[scenario](ray, directory)
            print(json.dumps(answer), flush=True)
        finally:
            ray.shutdown()


def tells(ray, directory):
    looking = ray.remote(num_cpus=0)(Looking)
    told = {"task": ray.get(ray.remote(seen).remote()), "actor": ray.get(looking.remote().seen.remote())}
    group = looking.options(runtime_env={"env_vars": {"PYTHONPATH": _prepended(DOUBLES)}}).remote()
    told["worker group"] = ray.get(group.seen.remote())
    return told


def saves(ray, directory):
    del directory
    trainer = ray.remote(num_cpus=0, runtime_env={"env_vars": {"PYTHONPATH": _prepended(DOUBLES)}})(Trainer)
    # Without `/nemo_run`, paths below it are translated in the resolved config and in the environment.
    controller, policy = trainer.remote(), trainer.remote()
    root = os.environ["RESULTS"]
    for step in (10, 20):
        path = ray.get(controller.begin.remote(root + "/grpo", step))
        ray.get(policy.save_part.remote(path))
        ray.get(controller.finalize.remote(path))
    ray.get(policy.save.remote(root + "/pretrain", 30, wandb=False))
    # Ray kills its workers, and their open work would stay for the next start. Wait for it.
    assert all(ray.get([controller.settled.remote(), policy.settled.remote()]))
    return ray.get(controller.root.remote())


def dies(ray, directory):
    trainer = ray.remote(num_cpus=0, runtime_env={"env_vars": {"PYTHONPATH": _prepended(DOUBLES)}})(Trainer)
    actors = {}
    for way in ("killed", "left", "terminated", "forgotten", "orphaned"):
        actors[way] = trainer.remote()
    saving = [actor.save.remote(os.path.join(directory, way), 10, wandb=True) for way, actor in actors.items()]
    pids = dict(zip(actors, ray.get(saving), strict=True))
    ray.kill(actors["killed"])
    actors["left"].leave.remote()
    os.kill(pids["terminated"], signal.SIGTERM)
    del actors["forgotten"]  # without a handle, Ray ends the actor
    for way in ("killed", "left", "terminated", "forgotten"):
        _until_gone(pids[way])
    return pids  # "orphaned" still runs, and ends with the cluster


def seen():
    return {
        "sitecustomize": os.path.abspath(sys.modules["sitecustomize"].__file__),
        "handoff": _handoff().get("job", {}).get("id"),
        "scheduler": sorted(name for name in os.environ if name.startswith("SLURM_")),
        "results": os.environ["RESULTS"],
        "first": os.environ["PYTHONPATH"].split(os.pathsep)[0],
    }


class Looking:
    def seen(self):
        return seen()


class Trainer:
    def __init__(self):
        self._manager = None

    def begin(self, directory, step):
        from nemo_rl.utils.checkpoint import CheckpointManager

        if self._manager is None:
            config = {"checkpoint_dir": directory, "metric_name": None, "higher_is_better": True, "keep_top_k": None}
            self._manager = CheckpointManager({**config, "save_period": 10, "save_optimizer": True})
        return str(self._manager.init_tmp_checkpoint(step, {"step": step}))

    def finalize(self, path):
        self._manager.begin_finalization(path)
        self._manager.finalize_pending()

    def settled(self):
        from _nemotron_exec.checkpoints import commit

        return commit.committer().settle(60)

    def root(self):
        return str(self._manager.checkpoint_dir)

    def save_part(self, path):
        self._megatron(os.path.join(path, "policy", "weights"), 0, None)

    def save(self, save_dir, number, *, wandb):
        writer = None
        if wandb:
            import wandb as writer

            writer.init(project="nemotron", entity="team", settings=writer.Settings(console="off", silent=True))
        self._megatron(save_dir, number, writer)
        return os.getpid()

    def leave(self):
        os._exit(0)

    def _megatron(self, save_dir, number, writer):
        sys.path.insert(0, HERE)
        import megatron_module

        path = os.path.join(save_dir, f"iter_{number:07d}")
        os.makedirs(path)
        with open(os.path.join(path, "common.pt"), "w") as file:
            file.write("weights")
        megatron_module.light().on_save_checkpoint_success(path, save_dir, number, writer)


def _prepended(directory):
    return directory + os.pathsep + os.environ["PYTHONPATH"]


def _handoff():
    from _nemotron_exec import handoff

    return handoff.read()


def _until_gone(pid):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.05)
    raise TimeoutError(f"process {pid} is still there")


if __name__ == "__main__":
    main()
