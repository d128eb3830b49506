"""The recipes of docs/hooks.md, with the real programs against servers on this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from framework_environments import python_of
from hub_backend import TOKEN
from places import ROOT

BIN = Path(sys.executable).parent
TRAIN = """
import os
from nemotron_exec import record_checkpoint
os.makedirs("out/step_10")
with open("out/step_10/config.json", "w") as file:
    file.write('{"model_type": "llama"}')
record_checkpoint("out/step_10", metrics={"loss": 0.5})
"""


def commands():
    """The commands of the page's YAML, by the hook's name."""
    import yaml

    found = {}
    for text in re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs/hooks.md").read_text(), re.DOTALL | re.MULTILINE):
        hooks = yaml.safe_load(text)["run"]["on_checkpoint"]
        for hook in hooks if isinstance(hooks, list) else [hooks]:
            if isinstance(hook, dict):
                found[hook["name"]] = hook["command"]
    return found


@pytest.fixture
def train(nemotron_exec, tmp_path):
    """Run a job with one hook, and wait for the hook; returns the environment of both."""

    def run(command, path=BIN, **environ):
        (tmp_path / "train.py").write_text(TRAIN)
        (tmp_path / "cfg.yaml").write_text(json.dumps({"run": {"on_checkpoint": {"command": command, "retries": 0}}}))
        environ = {
            **os.environ,
            "NEMOTRON_EXEC_STORE": str(tmp_path / "store"),
            "PATH": f"{path}:{BIN}:{os.environ['PATH']}",
            **environ,
        }
        done = nemotron_exec(sys.executable, "train.py", "cfg.yaml", env=environ)
        assert done.returncode == 0, done.stderr
        words = [sys.executable, "-m", "nemotron_exec.artifact_cli", "flush", "out"]
        done = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
        logs = "".join(path.read_text() for path in tmp_path.glob("out/.nemotron-exec/runs/*.log"))
        assert done.returncode == 0, done.stderr + logs
        return environ

    return run


def test_a_result_stands_in_the_lineage_with_the_checkpoint_as_its_input(train, tmp_path):
    page = (ROOT / "docs/hooks.md").read_text()
    script = page[page.index("#!/bin/bash") :].partition("```")[0]
    (tmp_path / "eval.sh").write_text(script)
    (tmp_path / "evaluate.py").write_text("import os, sys; os.makedirs(sys.argv[3])")
    environ = train("bash eval.sh", path=BIN)
    words = [sys.executable, "-m", "nemotron_exec.artifact_cli", "graph", "out-eval:latest"]
    drawn = subprocess.run(words, env=environ, capture_output=True, text=True, check=True).stdout
    assert re.search(r"out-eval:v1  evaluation .*/eval-10\n└─ out:v1  model .*step_10", drawn), drawn


def test_a_checkpoint_is_uploaded_to_the_hub(train, hub, tmp_path):
    command = commands()["hub"]
    assert command.startswith("hf upload my-org/my-model ")
    train(command, **hub.environ(tmp_path / "hf", token=TOKEN))
    repository = hub.model.find("model", "my-org/my-model")
    assert repository.commit("main").files["config.json"].content == b'{"model_type": "llama"}'


@pytest.mark.ci
def test_a_checkpoint_is_synced_to_a_bucket(train):
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        bucket = boto3.session.Session(
            aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1"
        ).client("s3", endpoint_url=url)
        bucket.create_bucket(Bucket="my-bucket")
        command = commands()["s3"]
        assert command.startswith("aws s3 sync ")
        train(command, path=Path(python_of("aws")).parent, AWS_ENDPOINT_URL=url, **keys)
        body = bucket.get_object(Bucket="my-bucket", Key="out/v1/config.json")["Body"].read()
        assert body == b'{"model_type": "llama"}'
    finally:
        server.stop()


# Runs a script for Megatron-Bridge on the CPU, without a change in the script.
ON_CPU = """
import runpy, sys
sys.path.insert(0, {frameworks!r})
import pretrain_tiny_gpt
import megatron.core.datasets.utils
megatron.core.datasets.utils.compile_helpers = lambda: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.ci
@pytest.mark.timeout(900)
def test_the_last_checkpoint_is_converted_by_megatron_bridges_own_converter(nemotron_exec, tmp_path):
    page = (ROOT / "docs/hooks.md").read_text()
    frameworks = ROOT / "tests/frameworks"
    (tmp_path / "convert.py").write_text(page.partition('```python title="convert.py"\n')[2].partition("```")[0])
    (tmp_path / "convert.sh").write_text(page.partition('```sh title="needs Megatron-Bridge"\n')[2].partition("```")[0])
    (tmp_path / "on_cpu.py").write_text(ON_CPU.format(frameworks=str(frameworks)))
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python"
    python.write_text(f'#!/bin/sh\nexec "{python_of("pretrain-0.6")}" "{tmp_path}/on_cpu.py" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "cfg.yaml").write_text(
        json.dumps({"run": {"on_checkpoint": {"command": commands()["convert"], "when": "last", "retries": 0}}})
    )
    environ = {
        "PATH": f"{tmp_path}/bin:{BIN}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "HF_MODEL": str(tmp_path / "source"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "NEMOTRON_EXEC_STORE": str(tmp_path / "store"),
    }
    script = frameworks / "train_tiny_llama.py"
    words = [python_of("pretrain-0.6"), str(script), str(tmp_path), "cfg.yaml"]
    done = nemotron_exec(*words, env=environ, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    flush = [sys.executable, "-m", "nemotron_exec.artifact_cli", "flush", "trained"]
    done = subprocess.run(
        flush, env={**os.environ, **environ}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    logs = "".join(path.read_text()[-4000:] for path in tmp_path.glob("trained/.nemotron-exec/runs/*.log"))
    assert done.returncode == 0, done.stderr + logs
    assert (tmp_path / "trained-hf/2/model.safetensors").exists(), logs
    manifest = json.loads((tmp_path / "store/trained-hf/v1/manifest.json").read_text())
    assert (manifest["type"], manifest["used_artifacts"]) == ("model", ["trained:v1"])
