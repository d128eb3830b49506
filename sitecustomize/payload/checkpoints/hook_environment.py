"""The environment of a hook's command: the job's, without the injector and without the ranks of training."""

from __future__ import annotations

import json
import os
import re

from ..paths.absolute import absolute

__all__ = []

PREFIX = "NEMOTRON_CHECKPOINT_"
# A program that finds one of these variables acts as a rank of the training job. PyTorch, NCCL, torchrun, ft_launcher,
# MPI and schedulers set them, and Slurm for its steps and tasks. The job's id stays.
_OF_A_RANK = re.compile(
    r"(?:(?:LOCAL|GROUP|ROLE|NODE)_)?RANK\Z|(?:(?:LOCAL|GROUP|ROLE)_)?WORLD_SIZE\Z|ROLE_NAME\Z|NNODES\Z|NUM_NODES\Z"
    r"|MASTER_(?:ADDR|PORT)\Z|TORCHELASTIC_|TORCH_NCCL_|NCCL_|PET_|NVRX_|CROSS_SLURM_|FT_RANK_"
    r"|OMPI_|PMI_|PMIX_|PMI2_|MPI_LOCAL|HYDI_|JOB_COMPLETION_INDEX\Z|SKYPILOT_(?:NODE_RANK|NUM_NODES)\Z"
    r"|DSTACK_(?:NODE_RANK|NODES_NUM)\Z"
    r"|SLURM_(?:PROCID|LOCALID|NODEID|STEP|GTIDS|TASK_PID|TASKS_PER_NODE|NTASKS|NPROCS|NNODES|CPU_BIND|MEM_|CPUS_PER_"
    r"|TRES_PER|GPUS|DISTRIBUTION|SRUN_|THREADS_PER|CORES_PER|WHOLE|OVERLAP|EXACT)"
)
_GIVEN = "NEMOTRON_EXEC_GIVEN"
_BETWEEN = "\x1e"


def environment(entry, environ):
    """The variables of a hook's command.

    Args:
        entry: The hook's entry.
        environ: The environment of the job, of the next start, or of `nemotron-artifact`.
    """
    own = dict(environ)
    for pair in own.get(_GIVEN, "").split(_BETWEEN):  # variables that the launcher has set for the job (WANDB_PROJECT)
        name, _, value = pair.partition("=")
        if name and own.get(name) == value:
            del own[name]
    own = {name: value for name, value in own.items() if not name.startswith("NEMOTRON_EXEC_")}
    own = {name: value for name, value in own.items() if not _OF_A_RANK.match(name)}
    own = {name: value for name, value in own.items() if not name.startswith(PREFIX)}
    if "PYTHONPATH" in own:
        entries = [one for one in own["PYTHONPATH"].split(os.pathsep) if not _is_injector(one)]
        own["PYTHONPATH"] = os.pathsep.join(entries)
        if not own["PYTHONPATH"]:
            del own["PYTHONPATH"]
    own.update(variables(entry))
    return own


def variables(entry):
    """`NEMOTRON_CHECKPOINT_*` of a hook's entry; a value that is not known is empty."""
    told = entry["checkpoint"]
    path, hf_path = place(entry), told.get("hf_path")
    if hf_path and path != told.get("path") and str(hf_path).startswith(str(told.get("path"))):
        hf_path = path + str(hf_path)[len(str(told.get("path"))) :]
    best = told.get("best")
    values = {
        "PATH": path,
        "SAVE_DIR": told.get("save_dir"),
        "NAME": told.get("name"),
        "VERSION": told.get("version"),
        "ITERATION": told.get("iteration"),
        "ALIASES": " ".join(map(str, told.get("aliases") or ())),
        "BEST": None if best is None else int(bool(best)),
        "FORMAT": told.get("format"),
        "HF_PATH": hf_path,
        "REFERENCE": told.get("reference"),
        "STORE": told.get("store"),
        "METRICS": json.dumps(told.get("metrics") or {}, sort_keys=True),
    }
    return {PREFIX + name: "" if value is None else str(value) for name, value in values.items()}


def place(entry):
    """The checkpoint's path for this process: its path in the job, or its path on the host if only that exists."""
    told = entry["checkpoint"]
    local, host = str(told.get("local_path") or ""), str(told.get("path") or "")
    return local if local and (os.path.exists(local) or not os.path.exists(host)) else host


def _is_injector(directory):
    """Whether an entry of PYTHONPATH is the injector's directory, of this or another copy: it holds the payload."""
    ours = os.path.dirname(os.path.dirname(os.path.dirname(absolute(__file__))))
    if not directory:
        return False
    return os.path.realpath(directory) == os.path.realpath(ours) or os.path.isfile(
        os.path.join(directory, "payload", "checkpoints", "hook_environment.py")
    )
