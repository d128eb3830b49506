#!/bin/sh
# A hook (run.on_checkpoint): evaluates the checkpoint, and registers the result with the checkpoint as its input.
set -eu
out=$NEMOTRON_CHECKPOINT_SAVE_DIR-eval/$NEMOTRON_CHECKPOINT_ITERATION
python examples/evaluate.py "$NEMOTRON_CHECKPOINT_PATH" README.md "$out"
nemotron-artifact --store "$NEMOTRON_CHECKPOINT_STORE" add "$NEMOTRON_CHECKPOINT_NAME-eval" "$out" --type evaluation \
    --input "$NEMOTRON_CHECKPOINT_NAME:$NEMOTRON_CHECKPOINT_VERSION"
