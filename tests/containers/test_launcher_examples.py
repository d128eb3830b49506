"""Every example under examples/ for a launcher is well-formed, and nemotron-exec finds each process's place in it."""

from __future__ import annotations

import glob
import os
import shlex
import subprocess
import sys
from typing import Any

import pytest
import yaml

from nemotron_exec.command.read import read
from nemotron_exec.place.rank import place

pytestmark = pytest.mark.ci

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXAMPLES = os.path.join(ROOT, "examples")
MANIFESTS = sorted(
    glob.glob(os.path.join(EXAMPLES, "kubernetes", "*.yaml")) + [os.path.join(EXAMPLES, "ray/rayjob.yaml")]
)
SCRIPTS = sorted(glob.glob(os.path.join(EXAMPLES, "*", "*.sbatch")) + glob.glob(os.path.join(EXAMPLES, "*", "*.sh")))
KUBERNETES = "1.31"


def tool(name: str) -> str:
    """A program of this virtual environment."""
    return os.path.join(os.path.dirname(sys.executable), name)


def documents(path: str) -> list[dict[str, Any]]:
    """The YAML documents of a file, aliases expanded."""
    with open(path) as file:
        return [document for document in yaml.safe_load_all(file) if document]


def name_of(path: str) -> str:
    """The file, as a test's name."""
    return os.path.relpath(path, EXAMPLES)


SHELL = [*SCRIPTS, os.path.join(ROOT, ".ci", "engines"), os.path.join(ROOT, "docker", "bundle", "nemotron-exec")]


@pytest.mark.parametrize("path", SHELL, ids=name_of)
def test_scripts_are_clean(path):
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    done = subprocess.run([tool("shellcheck"), path], capture_output=True, text=True)
    assert done.stdout == ""


# The fields of the custom resources that the examples use, from the CRDs of Trainer 8c0f505, Training Operator 1.9 and
# KubeRay 1.4. The parts that are Kubernetes' own are validated against its schemas.
POD = "a pod template"
REPLICA = {"replicas": int, "restartPolicy": str, "template": POD}
GROUP = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "rayStartParams": dict,
    "template": POD,
}
PATCH = {"spec": {"replicatedJobs": [{"name": str, "template": {"spec": {"template": {"spec": POD}}}}]}}
CUSTOM = {
    "TrainJob": {
        "runtimeRef": {"name": str},
        "trainer": {
            "image": str, "command": [str], "args": [str], "numNodes": int, "resourcesPerNode": dict, "env": [dict],
        },
        "runtimePatches": [{"manager": str, "trainingRuntimeSpec": {"template": PATCH}}],
    },
    "PyTorchJob": {"nprocPerNode": str, "pytorchReplicaSpecs": {"Master": REPLICA, "Worker": REPLICA}},
    "RayJob": {
        "entrypoint": str,
        "runtimeEnvYAML": str,
        "shutdownAfterJobFinishes": bool,
        "rayClusterSpec": {
            "headGroupSpec": {"rayStartParams": dict, "template": POD},
            "workerGroupSpecs": [GROUP],
        },
    },
}  # fmt: skip
VERSIONS = {
    "TrainJob": "trainer.kubeflow.org/v1alpha1",
    "PyTorchJob": "kubeflow.org/v1",
    "RayJob": "ray.io/v1",
    "Job": "batch/v1",
    "Service": "v1",
}


def check(value: Any, shape: Any, where: str) -> None:
    """Fail if `value` has a field that `shape` does not know, or that has another type."""
    if shape == POD:
        # A patch has no image, but the schema of a pod requires one.
        template = value if "spec" in value else {"spec": value}
        for container in template["spec"]["containers"]:
            container.setdefault("image", "none")
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, **template})
    elif isinstance(shape, dict):
        assert isinstance(value, dict), where
        assert not set(value) - set(shape), where
        for key, inner in value.items():
            check(inner, shape[key], f"{where}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        for index, inner in enumerate(value):
            check(inner, shape[0], f"{where}[{index}]")
    else:
        assert type(value) is shape, where


def validate(document: dict[str, Any]) -> None:
    """Validate against the schema of Kubernetes; unknown fields are refused."""
    import kubernetes_validate

    kubernetes_validate.validate(document, KUBERNETES, strict=True)


# SkyPilot's own parser needs an environment of its own, because it has a hundred requirements.
SKYPILOT = "skypilot==0.14.1"


@pytest.fixture(scope="session")
def skypilot() -> str:
    """A Python that has SkyPilot; made once, kept in build/."""
    home = os.path.join(ROOT, "build", "skypilot")
    python = os.path.join(home, "bin", "python")
    ready = os.path.join(home, SKYPILOT)
    if not os.path.exists(ready):
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", SKYPILOT], check=True)
        open(ready, "w").close()
    return python


@pytest.mark.timeout(900)
def test_skypilot_itself_reads_its_example(skypilot, tmp_path):
    path = os.path.join(EXAMPLES, "skypilot/job.yaml")
    wrong = tmp_path / "job.yaml"
    with open(path) as file:
        wrong.write_text(file.read().replace("num_nodes:", "number_of_nodes:"))
    code = "import sky, sys; task = sky.Task.from_yaml(sys.argv[1]); print(task.num_nodes, task.run.split()[0])"
    environ = {**os.environ, "HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    right, refused = (
        subprocess.run([skypilot, "-c", code, name], env=environ, capture_output=True, text=True)
        for name in (path, wrong)
    )
    assert right.stdout.splitlines()[-1:] == ["2 nemotron-exec"], right.stderr
    assert refused.returncode != 0
    assert "number_of_nodes" in refused.stderr + refused.stdout


@pytest.mark.parametrize("path", MANIFESTS, ids=name_of)
def test_manifests_match_their_schemas(path):
    for document in documents(path):
        kind = document["kind"]
        assert document["apiVersion"] == VERSIONS[kind]
        assert document["metadata"]["name"]
        if kind in CUSTOM:
            check(document["spec"], CUSTOM[kind], kind)
        else:
            validate(document)


def containers(document: Any) -> list[dict[str, Any]]:
    """Every container anywhere in a document that names a command."""
    if isinstance(document, dict):
        own = [document] if "command" in document and "image" in document else []
        return own + [found for value in document.values() for found in containers(value)]
    if isinstance(document, list):
        return [found for value in document for found in containers(value)]
    return []


@pytest.mark.parametrize("path", [path for path in MANIFESTS if "rayjob" not in path], ids=name_of)
def test_every_command_of_kubernetes_begins_with_nemotron_exec(path):
    # `command` replaces the image's ENTRYPOINT.
    commands = [container["command"] for document in documents(path) for container in containers(document)]
    assert commands
    for words in commands:
        first = words[3] if words[0].endswith("tini") else words[0]
        assert os.path.basename(first) == "nemotron-exec"


def words_of(container: dict[str, Any]) -> list[str]:
    """The words that nemotron-exec sees as its command."""
    words = container["command"] + container.get("args", [])
    start = next(index for index, word in enumerate(words) if os.path.basename(word) == "nemotron-exec")
    return [word for word in words[start + 1 :] if word != "--resolve-only"]


def slurm(node: int, nodes: int) -> dict[str, str]:
    """The variables that srun sets for the task of one node."""
    return {
        "SLURM_JOB_ID": "4242", "SLURM_JOB_NODELIST": "node[0-3]",
        "SLURM_STEP_ID": "0", "SLURM_PROCID": str(node), "SLURM_NODEID": str(node),
        "SLURM_LOCALID": "0", "SLURM_GPUS_ON_NODE": "8", "SLURM_NTASKS": str(nodes), "SLURM_NNODES": str(nodes),
        "SLURM_STEP_NUM_NODES": str(nodes), "SLURM_STEP_NUM_TASKS": str(nodes),
        "SLURM_TASKS_PER_NODE": f"1(x{nodes})",
    }  # fmt: skip


def trainer(node: int, nodes: int) -> dict[str, str]:
    """The variables that Kubeflow Trainer's torch plugin and the Job controller set for a pod."""
    return {
        "PET_NNODES": str(nodes), "PET_NPROC_PER_NODE": "auto", "PET_NODE_RANK": str(node),
        "PET_MASTER_ADDR": "pretrain-node-0-0.pretrain", "PET_MASTER_PORT": "29400", "JOB_COMPLETION_INDEX": str(node),
    }  # fmt: skip


def pytorchjob(node: int, nodes: int) -> dict[str, str]:
    """The variables of the Training Operator: RANK is the pod's number, WORLD_SIZE counts processes."""
    return {
        "PET_NODE_RANK": str(node), "PET_NNODES": str(nodes), "PET_NPROC_PER_NODE": "8", "RANK": str(node),
        "WORLD_SIZE": str(8 * nodes), "MASTER_ADDR": "pretrain-master-0", "MASTER_PORT": "23456",
    }  # fmt: skip


def indexed(node: int, nodes: int) -> dict[str, str]:
    """The variables that the Job controller sets for a pod."""
    return {"JOB_COMPLETION_INDEX": str(node)}


def sky(node: int, nodes: int) -> dict[str, str]:
    """The variables that SkyPilot sets for a node."""
    return {
        "SKYPILOT_NODE_RANK": str(node), "SKYPILOT_NUM_NODES": str(nodes), "SKYPILOT_NUM_GPUS_PER_NODE": "8",
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_TASK_ID": "sky-managed-1",
    }  # fmt: skip


def wrapped(path: str, environ: dict[str, str]) -> list[str]:
    """Run the script of an example in a shell; returns the words after nemotron-exec."""
    with open(path) as file:
        text = file.read() if not path.endswith(".yaml") else yaml.safe_load(file)["run"]
    # All programs of the script are stubs: the test needs only the words that the shell passes.
    stubs = (
        "mkdir() { :; }; scontrol() { echo node0; }; apptainer() { :; }\n"
        "nemotron-exec() { printf '%s\\0' \"$@\"; }; sbatch() { :; }\n"
        'srun() { while [ "$1" != nemotron-exec ]; do shift; done; "$@"; }\n'
    )
    done = subprocess.run(
        ["bash", "-c", stubs + text, "example"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **environ},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\0")[:-1]


SHELL_EXAMPLES = {
    "slurm/pyxis.sbatch": (slurm, 4, "SLURM_PROCID"),
    "slurm/apptainer.sbatch": (slurm, 4, "SLURM_PROCID"),
    "ft_launcher/job.sbatch": (slurm, 6, "SLURM_PROCID"),
    "skypilot/job.yaml": (sky, 2, "--node-rank"),
}


@pytest.mark.parametrize("name", SHELL_EXAMPLES)
@pytest.mark.parametrize("node", [0, 1])
def test_each_node_of_a_script_finds_its_place(name, node):
    environment, nodes, source = SHELL_EXAMPLES[name]
    environ = environment(node, nodes)
    words = wrapped(os.path.join(EXAMPLES, name), environ)
    while words[0].startswith("--"):
        words = words[2:]  # skip nemotron-exec's options, each with a value
    command = read(words)
    found = place(environ, command)
    assert command.launcher is not None
    assert words[command.program] == "train.py"
    assert (found.node, found.nodes, found.source) == (node, nodes, source)


MANIFEST_EXAMPLES = {
    "kubernetes/trainjob.yaml": (trainer, 4, "PET_NODE_RANK"),
    "kubernetes/pytorchjob.yaml": (pytorchjob, 4, "PET_NODE_RANK"),
    "kubernetes/indexed-job.yaml": (indexed, 4, "--node-rank"),
    "kubernetes/init-container.yaml": (lambda node, nodes: {}, 1, "torchrun's default of one node"),
}


@pytest.mark.parametrize("name", MANIFEST_EXAMPLES)
def test_each_pod_of_a_manifest_finds_its_place(name):
    environment, nodes, source = MANIFEST_EXAMPLES[name]
    for container in [c for d in documents(os.path.join(EXAMPLES, name)) for c in containers(d)]:
        for node in range(nodes):
            environ = environment(node, nodes)
            words = [word.replace("$(JOB_COMPLETION_INDEX)", str(node)) for word in words_of(container)]
            found = place(environ, read(words))
            assert (found.node, found.nodes, found.source) == (node, nodes, source)


@pytest.mark.parametrize("name", ["ray/rayjob.yaml", "ray/nemo-rl.sh"])
def test_a_ray_driver_is_the_only_launcher_and_has_a_job_id(name):
    path = os.path.join(EXAMPLES, name)
    if name.endswith(".yaml"):
        (document,) = documents(path)
        words = shlex.split(document["spec"]["entrypoint"])
        # NeMo-RL passes its own environment to ray.init, and these variables would collide with it.
        assert "runtimeEnvYAML" not in document["spec"]
    else:
        with open(path) as file:
            (line,) = (line for line in file if line.startswith("export COMMAND="))
        words = shlex.split(shlex.split(line)[1].split("=", 1)[1])
    assert words[:2] == ["nemotron-exec", "--job-id"]
    while words[1].startswith("--"):
        words = [words[0], *words[3:]]
    # ray.sub removes all variables of Slurm, and KubeRay sets none.
    found = place({"RAY_ADDRESS": "10.0.0.1:6379"}, read(words[1:]))
    assert (found.index, found.count) == (0, 1)


def test_nemo_run_writes_the_command_that_the_example_promises(tmp_path):
    # The stub stands in for nemo-run, whose Script.to_command gives entrypoint, path and args in this order.
    path = os.path.join(EXAMPLES, "nemo-run", "submit.py")
    code = (
        "import sys, types\n"
        "class Script:\n"
        "    def __init__(self, path, entrypoint, args): self.words = [entrypoint, path, *args]\n"
        "fake = types.ModuleType('nemo_run'); fake.Script = Script\n"
        "for name in ('SlurmExecutor', 'SSHTunnel', 'GitArchivePackager'): setattr(fake, name, lambda **k: k)\n"
        "class Experiment:\n"
        "    def __init__(self, name): pass\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *a): pass\n"
        "    def add(self, task, executor, name): print('\\n'.join(task.words)); assert 'launcher' not in executor\n"
        "    def dryrun(self): pass\n"
        "fake.Experiment = Experiment; sys.modules['nemo_run'] = fake\n"
        "import runpy; sys.argv = [sys.argv[1], '--dry-run']; runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[:2] == ["nemotron-exec", "torchrun"]
    environ = slurm(2, 4)
    found = place(environ, read(words[1:]))
    assert (found.node, found.nodes, found.source) == (2, 4, "SLURM_PROCID")
