"""A short double of `nemotron.kit.wandb_kit` of NVIDIA's Nemotron, which replaces functions of the frameworks."""

from __future__ import annotations

_PENDING = []


def patch_wandb_init_for_lineage(*, artifact_qualified_names, tags=None):
    import wandb

    _PENDING.extend(artifact_qualified_names)
    original_init = wandb.init

    def patched_init(*args, **kwargs):
        run = original_init(*args, **kwargs)
        run.tags = [*(run.tags or ()), *(tags or ())]
        for name in _PENDING:
            run.use_artifact(name)
        return run

    wandb.init = patched_init


def patch_wandb_checkpoint_logging():
    from megatron.bridge.training.utils import wandb_utils

    def patched_on_save_checkpoint_success(checkpoint_path, save_dir, iteration, wandb_writer):
        print("the kit's callback", checkpoint_path)

    wandb_utils.on_save_checkpoint_success = patched_on_save_checkpoint_success


def patch_manifest_checkpoint_logging():
    patch_wandb_checkpoint_logging()


def patch_nemo_rl_checkpoint_logging(artifact_name="rl"):
    from nemo_rl.utils.checkpoint import CheckpointManager

    original_finalize_checkpoint = CheckpointManager.finalize_checkpoint

    def patched_finalize_checkpoint(self, checkpoint_path):
        original_finalize_checkpoint(self, checkpoint_path)
        print("the kit logs", artifact_name)

    CheckpointManager.finalize_checkpoint = patched_finalize_checkpoint


def patch_nemo_rl_checkpoint_logging_both(artifact_name="rl"):
    patch_nemo_rl_checkpoint_logging(artifact_name)
