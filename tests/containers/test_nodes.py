"""Real training in real containers: PyTorch, torchrun, Megatron-Bridge's callback, several containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ci, pytest.mark.timeout(900)]

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
TORCHRUN = f"""#!/bin/sh
exec {sys.base_prefix}/bin/{PYTHON} -m torch.distributed.run "$@"
"""


@pytest.fixture(scope="module")
def torch(tmp_path_factory):
    """Mounts and variables that give a container this virtual environment's PyTorch, and a torchrun."""
    program = tmp_path_factory.mktemp("torch") / "torchrun"
    program.write_text(TORCHRUN)
    program.chmod(0o755)
    packages = [os.path.realpath(entry) for entry in sys.path if entry.endswith("site-packages")]
    mounts = [f"{path}:{path}:ro" for path in dict.fromkeys([os.path.realpath(sys.base_prefix), *packages])]
    mounts += [f"{program}:/usr/local/bin/torchrun:ro"]
    environment = {"PYTHONPATH": ":".join(packages), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return mounts, environment


def options(torch, *mounts, **environment):
    """The same as words for `podman run`."""
    words = []
    for mount in (*torch[0], *mounts):
        words += ["-v", mount]
    for name, value in {**torch[1], **environment}.items():
        words += ["--env", f"{name}={value}"]
    return tuple(words)


@pytest.fixture
def host(tmp_path):
    """Directories of the host, with the data of the demo."""
    for name in ("jobs/12345", "jobs/12346", "store", "data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data" / "shard.txt").write_text("a text to learn from, again and again. " * 200)
    (tmp_path / "data" / "blend.json").write_text('{"train": ["shard.txt"]}')
    return tmp_path


def test_a_checkpoint_under_nemo_run_is_recorded_with_its_host_path_and_opened_elsewhere(engine, image, torch, host):
    tag = image("debian-python")
    examples = f"{ROOT}/examples:/examples:ro"
    added = engine.run(
        tag, "nemotron-artifact", "add", "demo-blend", "/data", "--type", "dataset", "--meta", "pack_size=32",
        options=options(torch, f"{host}/data:/data", f"{host}/store:/store", NEMO_ARTIFACT_ROOT="/store"),
    )  # fmt: skip
    assert added.returncode == 0, added.stderr

    first = engine.run(
        tag, "torchrun", "--nproc-per-node", "2", "pretrain.py", "pretrain.yaml",
        options=(*options(torch, f"{host}/data:/data:ro", f"{host}/store:/store", f"{host}/jobs/12345:/nemo_run",
                          examples, NEMO_ARTIFACT_ROOT="/store"), "-w", "/examples"),
    )  # fmt: skip
    assert first.returncode == 0, first.stdout + first.stderr
    assert (host / "jobs/12345/pretrain/iter_0000010/model.pt").exists()
    with open(host / "store/pretrain/v1/manifest.json") as file:
        manifest = json.load(file)
    saved = f"{host}/jobs/12345/pretrain"
    assert manifest["path"] == saved
    assert manifest["metadata"]["absolute_path"] == saved
    assert manifest["metadata"]["iteration"] == 10

    # The second job sees the store and the team's data under other paths, and has its own /nemo_run.
    second = engine.run(
        tag, "torchrun", "--nproc-per-node", "2", "sft.py", "sft.yaml",
        options=(*options(torch, f"{host}/data:/corpora:ro", f"{host}/store:/registry", f"{host}/jobs:/team/jobs:ro",
                          f"{host}/jobs/12346:/nemo_run", examples, NEMO_ARTIFACT_ROOT="/registry"), "-w", "/examples"),
    )  # fmt: skip
    assert second.returncode == 0, second.stdout + second.stderr
    assert "/pretrained/model/pretrain/iter_0000020/model.pt" in second.stdout
    assert "reading /corpora/blend.json" in second.stdout
    with open(host / "store/sft/v1/manifest.json") as file:
        assert json.load(file)["path"] == f"{host}/jobs/12346/sft"


def test_compose_runs_one_job_on_two_nodes(engine, image, torch, tmp_path):
    tag = image("debian-python")
    # compose calls `podman`. The wrapper gives it the session's storage and limits that a nested engine may set.
    wrapper = tmp_path / "bin" / "podman"
    wrapper.parent.mkdir()
    words = " ".join(engine.podman[1:])
    wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/env PATH="{os.environ["PATH"]}" podman {words} "$@"\n')
    wrapper.chmod(0o755)
    mounts, environment = torch
    override = {name: {"volumes": mounts, "environment": environment} for name in ("data", "node0", "node1")}
    (tmp_path / "override.yaml").write_text(json.dumps({"services": override}))
    project = f"test{os.getpid()}"
    compose = [
        os.path.join(os.path.dirname(sys.executable), "podman-compose"), "--podman-path", str(wrapper), "-p", project,
        "--podman-run-args", " ".join(engine.limits()),
        "-f", os.path.join(ROOT, "docker", "compose.yaml"), "-f", str(tmp_path / "override.yaml"),
    ]  # fmt: skip
    environ = {**os.environ, "IMAGE": tag, "JOB": project}
    try:
        done = subprocess.run([*compose, "up"], capture_output=True, text=True, env=environ, timeout=600)
        output = done.stdout + done.stderr
        for node in ("node0", "node1"):
            code = engine.call("inspect", "--format", "{{.State.ExitCode}}", f"{project}_{node}_1").stdout.strip()
            assert code == "0", output
        # Both nodes took part, and one of them looked the artifact up.
        assert "step 20" in output
        assert output.count("data: demo-blend:v") == 1, output
        stored = engine.run(tag, "nemotron-artifact", "show", "pretrain", "--json", options=(
            "-v", f"{project}_shared:/shared", "--env", "NEMO_ARTIFACT_ROOT=/shared/artifacts"))  # fmt: skip
        assert json.loads(stored.stdout)["metadata"]["iteration"] == 20
    finally:
        subprocess.run([*compose, "down", "--volumes", "-t", "0"], capture_output=True, env=environ, timeout=120)


def test_an_init_container_resolves_and_a_container_without_store_or_network_trains(engine, base, bundle, host):
    # As in examples/kubernetes/init-container.yaml, both have a shared state directory, the same job and the same
    # command.
    work = host / "work"
    state = host / "state"
    work.mkdir()
    state.mkdir()
    (work / "cfg.yaml").write_text("run:\n  data: corpus:latest\npath: ${art:data,path}\n")
    tool = ("-v", f"{bundle}:/bundle:ro", "-v", f"{work}:/work:ro", "-v", f"{host}/data:/shared", "-w", "/work")
    store = ("-v", f"{host}/store:/store", "--env", "NEMO_ARTIFACT_ROOT=/store")
    job = ("-v", f"{state}:/state", "--env", "NEMOTRON_EXEC_STATE_DIR=/state", "--env", "NEMOTRON_EXEC_JOB_ID=uid-1")
    tag = base("debian-python")
    added = engine.run(tag, "/bundle/bin/nemotron-artifact", "add", "corpus", "/shared", "--type", "dataset",
                       options=(*tool, *store))  # fmt: skip
    assert added.returncode == 0, added.stderr
    command = ("cat", "cfg.yaml")
    first = engine.run(tag, "/bundle/bin/nemotron-exec", "--resolve-only", *command, options=(*tool, *store, *job))
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["artifacts"][0]["version"] == "v1"
    second = engine.run(tag, "/bundle/bin/tini", "-g", "--", "/bundle/bin/nemotron-exec", *command,
                        options=(*tool, *job))  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert "path: /shared" in second.stdout


def test_the_doctor_in_a_container_says_whether_the_job_would_work(engine, image, host):
    tag = image("debian-python")
    environment = ("--env", "NEMO_ARTIFACT_ROOT=/store", "--entrypoint", "nemotron-exec")
    mounted = ("-v", f"{host}/store:/store", "-v", f"{host}/jobs/12345:/nemo_run")
    good = engine.run(tag, "--doctor", "python3", "train.py", options=(*environment, *mounted))
    assert good.returncode == 0, good.stdout
    assert f"is {host}/jobs/12345 on the host" in good.stdout
    assert "the injector runs" in good.stdout

    words = ("--log-format", "json", "--doctor", "python3", "-I", "train.py")
    bad = engine.run(tag, *words, options=environment)
    assert bad.returncode == 1
    assert "ends with this container" in bad.stdout  # the store, on the container's own layer
    assert "-I takes PYTHONPATH" in bad.stdout
    found = [json.loads(line) for line in bad.stdout.splitlines() if line.startswith("{")]
    assert {one["subject"] for one in found if one["level"] == "fault"} == {"command", "store"}
