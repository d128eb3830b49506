"""Write docs/recipes.md: each example of a cluster with its whole file. python docs/tools/recipes.py [--check]"""

from __future__ import annotations

import sys
from pathlib import Path

from page import write_or_compare

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/recipes.md"
RECIPES = {
    "Slurm with pyxis": "examples/slurm/pyxis.sbatch",
    "Slurm with Apptainer": "examples/slurm/apptainer.sbatch",
    "Slurm with mpirun": "examples/slurm/mpirun.sbatch",
    "ft_launcher with hot spares": "examples/ft_launcher/job.sbatch",
    "Kubeflow Trainer v2": "examples/kubernetes/trainjob.yaml",
    "Kubeflow PyTorchJob": "examples/kubernetes/pytorchjob.yaml",
    "Kubernetes Indexed Job": "examples/kubernetes/indexed-job.yaml",
    "Kubernetes, resolved in an init container": "examples/kubernetes/init-container.yaml",
    "nemo-run": "examples/nemo-run/submit.py",
    "NeMo-RL's ray.sub": "examples/ray/nemo-rl.sh",
    "KubeRay": "examples/ray/rayjob.yaml",
    "SkyPilot": "examples/skypilot/job.yaml",
}
HEAD = """\
<!-- Written by docs/tools/recipes.py from examples/; `make reference` writes it again. -->
# Recipes: one whole file a cluster

```diff
- torchrun --nproc-per-node 8 train.py cfg.yaml
+ nemotron-exec torchrun --nproc-per-node 8 train.py cfg.yaml
```

```text
nemotron-exec: data: my-blend:v1 -> /lustre/team/blend
```

Each file below makes this one change for its launcher, and the job's log then has such a line for each artifact. Copy
the file, change names, paths and the image, and submit it. The file begins with the command that submits it, and with
notes on this launcher. [Containers and clusters](containers.md) has the rules, and [compatibility](compatibility.md)
lists what was tried of each.
"""
_LANGUAGES = {
    ".sbatch": 'bash title="needs a cluster"',
    ".sh": 'bash title="needs a cluster"',
    ".py": "python",
    ".yaml": "yaml",
}


def text() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, name in RECIPES.items():
        path = ROOT / name
        content = path.read_text(encoding="utf-8").rstrip("\n")
        parts.append(f"\n## {title}\n[{name}](../{name})\n\n```{_LANGUAGES[path.suffix]}\n{content}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(write_or_compare(PAGE, text()))
