"""The tests of the hub with a huggingface_hub of two years ago, and jobs whose ranks use the real transformers.

Each has an environment of its own, made once in build/, because nemotron-exec and the other tests need neither.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys

import pytest

import other_versions
from framework_environments import install, python_of
from places import ROOT
from tiny_model import FILES, REMOTE_CODE, safetensors

pytestmark = [pytest.mark.ci, pytest.mark.timeout(900)]

CONFIG = """\
run: {model: hf://org/model}
policy:
  model_name: ${art:model,FIELD}
  tokenizer: {name: "${policy.model_name}"}
"""


def environment(name, *requirements, outer=False):
    """The interpreter of an environment; with `outer` it also has the packages of this environment."""
    home = ROOT / "build" / f"hub-{name}"
    python = home / "bin" / "python"
    ready = home / f"ready-{sys.version_info.minor}"
    wanted = "\n".join(requirements)
    home.parent.mkdir(exist_ok=True)
    # One worker of pytest makes the environment, and the others wait.
    with (home.parent / f"hub-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists() or ready.read_text() != wanted:
            shutil.rmtree(home, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True, timeout=300)
            if requirements:
                install(python, *requirements)
            if outer:
                other_versions.fall_back(home)
            ready.write_text(wanted)
    return str(python)


def test_the_store_works_with_a_huggingface_hub_of_two_years_ago(tmp_path):
    python = environment("oldest", "huggingface_hub==0.26.5", outer=True)
    assert other_versions.version_of(python, "huggingface_hub") == "0.26.5"
    words = ("tests/stores/huggingface",)
    assert other_versions.passed_again(python, "hub_matrix", *words, basetemp=tmp_path / "tests", timeout=800) >= 30


@pytest.fixture
def job(hub, tmp_path, nemotron_exec):
    """Start 64 ranks with or without the launcher; returns the number of their requests."""
    python = environment("transformers", "transformers", "datasets")

    def run(field, launched=True):
        (tmp_path / "cfg.yaml").write_text(CONFIG.replace("FIELD", field))
        command = [python, str(ROOT / "tests/support/hub_ranks.py"), "cfg.yaml", "64"]
        before = hub.operations()
        environ = {**hub.environ(tmp_path / "hf"), "NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state")}
        done = nemotron_exec(*command, env=environ, timeout=600)
        assert "64 ranks: {16}" in done.stdout, done.stderr[-4000:]
        return hub.operations() - before, done

    return run


@pytest.mark.parametrize("field", ["id", "path"])
def test_64_ranks_with_transformers_make_the_requests_of_none(hub, job, field):
    hub.seed("org/model", FILES)
    asked, _ = job(field)
    files = len(FILES)
    assert asked <= 4 + 4 * files, "the launcher's: which commit, which files, and each file once"
    assert hub.operations("info org/model@main") == 1


def test_an_id_means_the_pinned_commit_when_another_job_has_moved_main(hub, tmp_path, nemotron_exec):
    python = environment("transformers", "transformers", "datasets")
    hub.seed("org/model", FILES)
    (tmp_path / "cfg.yaml").write_text(CONFIG.replace("FIELD", "id"))
    (tmp_path / "main").write_text("0" * 40)
    environ = {**hub.environ(tmp_path / "hf"), "NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state")}
    refs = tmp_path / "hf/hub/models--org--model/refs/main"
    command = f"cp main {refs} && {python} {ROOT}/tests/support/hub_ranks.py $0 1"
    done = nemotron_exec("sh", "-c", command, "cfg.yaml", env=environ, timeout=300)
    assert "1 ranks: {16}" in done.stdout, done.stderr[-4000:]


@pytest.mark.parametrize("name", ["pretrain", "pretrain-0.6"])
def test_megatron_bridge_makes_a_model_of_an_id_and_of_a_path_without_the_network(hub, tmp_path, nemotron_exec, name):
    python = python_of(name)
    hub.seed("org/model", FILES | {"model.safetensors": safetensors("model.embed_tokens.weight", 3, 16)})
    names = "by_id: {hf_path: '${art:model,id}'}\nby_path: {hf_path: '${art:model,path}'}\n"
    (tmp_path / "cfg.yaml").write_text(f"run: {{model: hf://org/model}}\n{names}")
    environ = {**hub.environ(tmp_path / "hf"), "NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state")}
    program = str(ROOT / "tests/frameworks/hub_megatron_bridge.py")
    done = nemotron_exec(python, program, "cfg.yaml", env=environ, timeout=300)
    assert done.stdout.count("GPTModelProvider 16 (3, 16) 24.0") == 2, done.stderr[-4000:]
    assert hub.operations("info .*") == 1


if NEMO_RL := os.environ.get("NEMO_RL_CHECKOUT"):
    # NeMo-RL is on no index, and CI has no checkout.

    def test_nemo_rl_converts_a_model_of_an_id_and_of_a_path_without_the_network(hub, tmp_path, nemotron_exec):
        python = python_of("pretrain-0.6")
        code = "import sys, export_tiny_llama; export_tiny_llama.make(sys.argv[1])"
        frameworks = {**os.environ, "PYTHONPATH": str(ROOT / "tests/frameworks")}
        source = tmp_path / "source"
        subprocess.run([python, "-c", code, str(source)], env=frameworks, check=True, capture_output=True, timeout=300)
        hub.seed("org/llama", {path.name: path.read_bytes() for path in source.iterdir()})
        names = "policy: {by_id: '${art:model,id}', by_path: '${art:model,path}'}\n"
        (tmp_path / "cfg.yaml").write_text(f"run: {{model: hf://org/llama}}\n{names}")
        environ = {**hub.environ(tmp_path / "hf"), "NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state")}
        program = str(ROOT / "tests/frameworks/convert_nemo_rl.py")
        words = [python, program, os.path.abspath(NEMO_RL), "cfg.yaml", str(tmp_path / "converted")]
        done = nemotron_exec(*words, env=environ, timeout=600)
        assert done.stdout.count("12 weights, the same after both conversions") == 2, done.stderr[-4000:]
        assert "org/llama: 12 weights" in done.stdout
        assert hub.operations("info .*") == 1


def test_a_data_set_is_loaded_by_its_path_without_the_network(hub, tmp_path, nemotron_exec):
    python = environment("transformers", "transformers", "datasets")
    hub.seed("org/data", {"train.jsonl": b'{"a": 1}\n{"a": 2}\n'}, kind="dataset")
    (tmp_path / "cfg.yaml").write_text("run: {data: 'hf://datasets/org/data'}\ndata: {path: '${art:data,path}'}\n")
    (tmp_path / "load.py").write_text(
        "import sys, datasets, yaml\n"
        "print(datasets.load_dataset(yaml.safe_load(open(sys.argv[1]))['data']['path'])['train']['a'])\n"
    )
    environ = {**hub.environ(tmp_path / "hf"), "NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state")}
    done = nemotron_exec(python, "load.py", "cfg.yaml", env=environ, timeout=300)
    assert "[1, 2]" in done.stdout, done.stderr[-4000:]
    assert hub.operations("info .*") == 1


@pytest.mark.parametrize("field", ["id", "path"])
def test_modules_for_trust_remote_code_are_there_before_the_ranks_start(hub, tmp_path, nemotron_exec, field):
    python = environment("transformers", "transformers", "datasets")
    hub.seed("org/remote-1.5", REMOTE_CODE)
    run = "run: {model: {hf: org/remote-1.5, trust_remote_code: true}}\n"
    (tmp_path / "cfg.yaml").write_text(run + f"policy: {{model_name: '${{art:model,{field}}}'}}\n")
    (tmp_path / "load.py").write_text(
        "import sys, yaml, os\nfrom transformers import AutoConfig\n"
        "name = yaml.safe_load(open(sys.argv[1]))['policy']['model_name']\n"
        "before = {os.path.join(d, f) for d, _, fs in os.walk(os.environ['HF_HOME'] + '/modules') for f in fs}\n"
        "print('there', sorted(os.path.basename(f) for f in before if not f.endswith('__init__.py')))\n"
        "print(AutoConfig.from_pretrained(name, trust_remote_code=True).size)\n"
        "after = {os.path.join(d, f) for d, _, fs in os.walk(os.environ['HF_HOME'] + '/modules') for f in fs}\n"
        "print('new', [f for f in after - before if not f.endswith('.pyc')])\n"
    )
    environ = {**hub.environ(tmp_path / "hf"), "NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state")}
    done = nemotron_exec(python, "load.py", "cfg.yaml", env=environ, timeout=300)
    assert "configuration_tiny.py" in done.stdout, done.stderr[-4000:]
    assert "\n7\n" in done.stdout, done.stderr[-4000:]
    assert "new []" in done.stdout


def test_modules_that_cannot_be_prepared_are_one_warning(hub, tmp_path, nemotron_exec):
    hub.seed("org/remote", REMOTE_CODE)
    (tmp_path / "cfg.yaml").write_text("run: {model: {hf: org/remote, trust_remote_code: true}}\n")
    environ = {**hub.environ(tmp_path / "hf"), "NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state")}
    python = environment("empty")
    done = nemotron_exec(python, "-c", "print('started')", "cfg.yaml", env=environ)
    assert "started" in done.stdout
    assert len(re.findall("warning: .*trust_remote_code", done.stderr)) == 1, done.stderr
    shutil.rmtree(tmp_path / "hf")
