"""A driver on a running Ray cluster: `ray_driver.py SCENARIO [config]`. It does not use nemotron-exec.

A scenario is one JSON object. Prints one line of JSON with the observations of an actor on each node of the cluster.

    init        arguments of ray.init
    job_config  runtime_env of a JobConfig for ray.init
    actor       runtime_env of the actors
    restart     the actors are killed, and Ray starts them again
    save        a directory in which the actor on node3 completes a checkpoint
    init_ray    a checkout of NeMo-RL, whose init_ray is called instead of ray.init; "" does what that function does
"""

from __future__ import annotations

import json
import os
import sys
import time


class Seeing:
    """Reports the parts of the job that a worker sees."""

    def see(self):
        import socket

        seen = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "python": sys.executable,
            "injected": any(getattr(finder, "nemotron_exec", False) for finder in sys.meta_path),
            "path": os.environ.get("PYTHONPATH", "").split(os.pathsep),
            "variables": {
                name: os.environ.get(name) for name in ("NEMOTRON_EXEC_STORE", "WANDB_PROJECT", "FROM_HOOK", "OWN")
            },
            "cwd on path": os.getcwd() in sys.path[1:],
        }
        if seen["injected"]:
            from _nemotron_exec import handoff

            seen["artifacts"] = [one["qualified_name"] for one in handoff.read().get("artifacts") or ()]
        return seen

    def save(self, directory, number):
        """Complete a checkpoint, as Megatron-Bridge does, and wait until it is delivered."""
        sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "frameworks"))
        import megatron_module
        from _nemotron_exec.checkpoints import commit

        path = os.path.join(directory, f"iter_{number:07d}")
        os.makedirs(path)
        with open(os.path.join(path, "common.pt"), "w") as file:
            file.write("weights")
        megatron_module.light().on_save_checkpoint_success(path, directory, number, None)
        return commit.committer().settle(60)


def see_another(actor, pid):
    """The observations of the actor's next process. `ray.kill` does not wait for the end of the old process."""
    import ray

    while (seen := ray.get(actor.see.remote()))["pid"] == pid:
        time.sleep(0.05)
    return seen


def main(scenario, *_config):
    asked = json.loads(scenario)
    import ray

    if asked.get("job_config"):
        from ray.job_config import JobConfig

        asked["init"]["job_config"] = JobConfig(runtime_env=asked["job_config"])
    if asked.get("init_ray"):
        sys.path.insert(0, asked["init_ray"])
        from nemo_rl.distributed.virtual_cluster import init_ray

        init_ray()
    elif "init_ray" in asked:
        # As in nemo_rl/distributed/virtual_cluster.py, pass the driver's environment without the schedulers' variables.
        for name in list(os.environ):
            if name.startswith(("PMIX_", "PMI_", "MPI_", "OMPI_", "SLURM_")):
                del os.environ[name]
        ray.init(address="auto", runtime_env={"env_vars": dict(os.environ)}, include_dashboard=False)
    else:
        ray.init(log_to_driver=False, **asked["init"])
    seeing = ray.remote(num_cpus=0)(Seeing)
    actors = {}
    for host in ("node1", "node2", "node3"):
        options = {"resources": {host: 1}, "max_restarts": 1, "max_task_retries": 5}
        if "actor" in asked:
            options["runtime_env"] = asked["actor"]
        actors[host] = seeing.options(**options).remote()
    answer = ray.get([actor.see.remote() for actor in actors.values()])
    if asked.get("restart"):
        for actor in actors.values():
            ray.kill(actor, no_restart=False)
        first = {one["host"]: one["pid"] for one in answer}
        answer = [see_another(actor, first[host]) for host, actor in actors.items()]
    if "save" in asked:
        assert ray.get(actors["node3"].save.remote(asked["save"], 10))
    print("ANSWER " + json.dumps(answer), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
