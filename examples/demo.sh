#!/bin/sh
# Runs the main job: a data artifact, two training stages, an evaluation by a hook, and their lineage.
# Usage: examples/demo.sh BIN [DIRECTORY]: BIN has nemotron-exec, nemotron-artifact and torchrun.
set -eu
bin=$(cd "$1" && pwd)
work=${2:-.demo}
rm -rf "$work"
mkdir -p "$work/data" "$work/jobs/1" "$work/jobs/2"
work=$(cd "$work" && pwd)
export NEMOTRON_EXEC_STORE="$work/artifacts" OMP_NUM_THREADS=1 PATH="$bin:$PATH"

say() { printf '\n$ %s\n' "$*"; }
run() { say "$@"; "$@"; }

# Stand in for a data preparation job: make a blend of text shards.
cat examples/*.py > "$work/data/shard_0.txt"
cat examples/*.yaml README.md > "$work/data/shard_1.txt"
printf '{"train": ["shard_0.txt", "shard_1.txt"]}\n' > "$work/data/blend.json"
run nemotron-artifact add demo-blend "$work/data" --type dataset --meta pack_size=128

# nemo-run's jobs see their own directory as /nemo_run; here it lies under $NEMO_RUN_DIR.
export NEMO_RUN_DIR="$work/jobs/1"
run nemotron-exec torchrun --nproc-per-node 2 examples/pretrain.py examples/pretrain.yaml
export NEMO_RUN_DIR="$work/jobs/2"
run nemotron-exec torchrun --nproc-per-node 2 examples/sft.py examples/sft.yaml run.on_checkpoint=examples/evaluate.sh
# The evaluation outlives the training. This waits for it, and would run it if the training had been killed.
run nemotron-artifact flush "$work/jobs/2/sft"

run nemotron-artifact ls
run nemotron-artifact graph sft-eval:latest

# Print commands to try next, ready to paste in the directory where the demo was started.
shown=${2:-.demo}
cat <<END

What next:
  $1/nemotron-artifact show sft-eval:latest --store $shown/artifacts        # its fields, and the YAML that uses it
  $1/nemotron-artifact graph -o lineage.html --store $shown/artifacts       # the lineage as a page for the browser
  $1/nemotron-exec --store $shown/artifacts --dry-run python3 examples/sft.py examples/sft.yaml  # the plan of a start
END
