"""A recipe of NeMo Automodel with a tiny model and mock data, on the CPU. It does not use nemotron-exec.

Usage: train_automodel.py --config FILE [--checkpoint.is_async true …]
"""

from __future__ import annotations

import cuda_is_cpu
import torch


def on_the_cpu():
    """Replace the functions of `torch.cuda` that the recipe calls although its process group is gloo's."""
    torch.cuda.reset_peak_memory_stats = lambda *_: None
    torch.cuda.current_device = lambda: 0
    to = torch.nn.Module.to
    torch.nn.Module.to = lambda self, *args, **kwargs: to(
        self, *(cuda_is_cpu.CPU if isinstance(one, int) else one for one in args), **kwargs
    )
    cuda_is_cpu.OnTheCpu().__enter__()


def staged_on_the_cpu():
    """Let an asynchronous save make its copies in a thread, as on a GPU, and in order."""
    from torch.distributed.checkpoint import staging

    options = staging.StagingOptions(
        use_pinned_memory=False, use_shared_memory=False, use_async_staging=True, use_non_blocking_copy=False
    )
    staging.DefaultStager.__init__.__defaults__ = (options,)


def main():
    on_the_cpu()
    staged_on_the_cpu()
    # The config names its classes, and the recipe looks them up among the imported modules.
    import nemo_automodel.components.datasets.llm.mock_seq_cls  # noqa: F401
    from nemo_automodel.components.config._arg_parser import parse_args_and_load_config
    from nemo_automodel.recipes.llm.train_seq_cls import TrainFinetuneRecipeForSequenceClassification

    recipe = TrainFinetuneRecipeForSequenceClassification(parse_args_and_load_config())
    recipe.setup()
    recipe.run_train_validation_loop()


if __name__ == "__main__":
    main()
