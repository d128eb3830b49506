"""nemo-run on Slurm: python examples/nemo-run/submit.py

nemo-run's own torchrun launcher drops `Script.entrypoint`, so the executor has no launcher here, and torchrun is the
script: the command becomes `nemotron-exec torchrun … train.py cfg.yaml`, one task a node. Each job's directory is bound
to /nemo_run, and checkpoints are recorded under its path on the host.
"""

import sys

import nemo_run as run

NODES, GPUS = 4, 8

# $SLURM_… and $head_node_ip are expanded by the batch script that nemo-run writes, on the cluster.
TORCHRUN = [
    *("--nnodes", str(NODES), "--nproc-per-node", str(GPUS)),
    *("--rdzv-backend", "c10d", "--rdzv-endpoint", "$head_node_ip:29500", "--rdzv-id", "$SLURM_JOB_ID"),
]


def main() -> None:
    """Submit, or print what would be submitted with `--dry-run`."""
    executor = run.SlurmExecutor(
        account="ACCOUNT",
        partition="PARTITION",
        nodes=NODES,
        ntasks_per_node=1,
        gpus_per_node=GPUS,
        container_image="/lustre/team/images/nemo-exec.sqsh",
        container_mounts=["/lustre/team:/lustre/team"],
        env_vars={"NEMO_ARTIFACT_ROOT": "/lustre/team/artifacts"},
        tunnel=run.SSHTunnel(host="login.example.com", user="me", job_dir="/lustre/team/jobs"),
        packager=run.GitArchivePackager(),
    )
    task = run.Script(path="torchrun", entrypoint="nemotron-exec", args=[*TORCHRUN, "train.py", "cfg.yaml"])
    with run.Experiment("pretrain") as experiment:
        experiment.add(task, executor=executor, name="pretrain")
        if "--dry-run" in sys.argv[1:]:
            experiment.dryrun()
        else:
            experiment.run(detach=True)


if __name__ == "__main__":
    main()
