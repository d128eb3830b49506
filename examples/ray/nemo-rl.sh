#!/bin/bash
# NeMo-RL's ray.sub: bash examples/ray/nemo-rl.sh /path/to/RL
#
# ray.sub removes every SLURM_ variable before it starts COMMAND, so this script names the job. A chain of jobs of one
# name (--dependency=singleton) is one training run, and keeps the versions of its first job.
set -euo pipefail
cd "${1:?usage: nemo-rl.sh DIRECTORY_OF_NEMO_RL}"

run=${RUN:-grpo-nano}
team=${TEAM:-/lustre/team}

export NEMO_ARTIFACT_ROOT=$team/artifacts
export CONTAINER=${CONTAINER:-$team/images/nemo-rl-exec.sqsh}
export MOUNTS=$team:$team,$team/jobs/$run:/nemo_run
export COMMAND="nemotron-exec --job-id $run uv run examples/run_grpo.py --config cfg.yaml"
mkdir -p "$team/jobs/$run"

sbatch --nodes="${NODES:-2}" --job-name="$run" --dependency=singleton --gpus-per-node=8 ray.sub
