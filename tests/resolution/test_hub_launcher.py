"""Hugging Face references in a config: the job gets pinned commits, on every node, and without the network."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest
import yaml

from hub_backend import TOKEN
from places import ROOT
from tiny_model import FILES

CONFIG = """\
run:
  model: hf://org/model@v1
model:
  path: ${art:model,path}
  id: ${art:model,id}
  revision: ${art:model,revision}
  size: ${art:model,metadata.hidden_size}
  license: ${art:model,license}
"""
SHOW = 'cat "$0"; env | grep -E "^(HF|TRANSFORMERS)_" | sort'


@pytest.fixture
def environ(hub, tmp_path):
    return {**hub.environ(tmp_path / "hf"), "NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state")}


@pytest.fixture
def launch(nemotron_exec, environ, tmp_path):
    """Start the launcher with a config; `text` is its text, `env` more variables."""

    def run(text=CONFIG, *options, env=None, command=("sh", "-c", SHOW), words=()):
        (tmp_path / "cfg.yaml").write_text(text)
        return nemotron_exec(*options, *command, "cfg.yaml", *words, env={**environ, **(env or {})})

    return run


def variables(done):
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if line.startswith(("HF_", "TRANSFORMERS_")))


def revision_of(text):
    """The revision as YAML reads it: a commit that looks like a number is in quotes."""
    return yaml.safe_load(next(line for line in text.splitlines() if line.strip().startswith("revision:")))["revision"]


def view_of(done, repository="models--org--model"):
    return os.path.join(variables(done)["HF_HUB_CACHE"], repository)


def test_the_fields_of_a_model_stand_in_the_config(hub, launch):
    commit = hub.seed("org/model", FILES, card={"license": "mit"}, tag="v1")
    hub.seed("org/model", {"config.json": b"{}"})
    done = launch()
    assert done.returncode == 0, done.stderr
    assert f"snapshots/{commit}\n" in done.stdout
    assert "id: org/model\n" in done.stdout
    assert revision_of(done.stdout) == commit
    assert "size: 16\n" in done.stdout
    assert "license: mit\n" in done.stdout
    assert f"run.model = hf://org/model@{commit}" in done.stdout
    assert f"model: org/model@{commit[:12]} -> " in done.stderr


@pytest.mark.parametrize(
    "value",
    [
        "org/model",
        "hf://org/model",
        "{hf: org/model}",
        "{hf: org/model, revision: main}",
        "{hf: 'hf://org/model@main', include: ['*.json']}",
        "{hf: org/model, revision: '${oc.env:REVISION}'}",
    ],
)
def test_a_model_is_named_by_its_id_a_uri_or_a_mapping(hub, launch, value):
    commit = hub.seed("org/model", FILES)
    done = launch(f"run: {{model: {value}}}\nrevision: ${{art:model,revision}}\n", env={"REVISION": "main"})
    assert revision_of(done.stdout) == commit, done.stderr


def test_the_scheme_names_the_store_whatever_the_backend_is(hub, launch, tmp_path):
    hub.seed("org/data", {"train.jsonl": b"{}"}, kind="dataset")
    (tmp_path / "data").mkdir()
    text = "run: {data: 'hf://datasets/org/data', more: 'mine:latest'}\na: ${art:data,path}\nb: ${art:more,path}\n"
    added = subprocess.run(
        [sys.executable, "-m", "nemotron_exec.artifact_cli", "add", "mine", "data", "--store", "store"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    done = launch(text, "--backend", "manifest", "--store", "store")
    assert "datasets--org--data/snapshots/" in done.stdout, done.stderr
    assert f"b: {tmp_path / 'data'}\n" in done.stdout


def test_an_id_that_nothing_uses_stays_what_it_is(hub, launch):
    done = launch("run: {model: org/model}\na: 1\n")
    assert done.returncode == 0
    assert hub.operations() == 0


def test_a_restart_keeps_the_commit_and_asks_nothing(hub, launch):
    first = hub.seed("org/model", FILES)
    text = CONFIG.replace("@v1", "")
    assert launch(text, "--job-id", "7").returncode == 0
    hub.seed("org/model", {"config.json": b"{}"})
    asked = hub.operations()
    done = launch(text, "--job-id", "7")
    assert revision_of(done.stdout) == first
    assert hub.operations() == asked


def test_a_chain_of_jobs_keeps_the_commit_with_the_output_and_asks_nothing(hub, launch, tmp_path):
    first = hub.seed("org/model", FILES)
    text = CONFIG.replace("@v1", "") + "checkpoint: {save: out}\n"
    (tmp_path / "out/step_1").mkdir(parents=True)
    assert launch(text, "--job-id", "1").returncode == 0
    second = hub.seed("org/model", {**FILES, "config.json": FILES["config.json"].replace(b"16", b"32")})
    asked = hub.operations()
    assert revision_of(launch(text, "--job-id", "2").stdout) == first
    assert hub.operations() == asked
    assert revision_of(launch(text, "--refresh", "--job-id", "3").stdout) == second


def test_the_pin_of_a_branch_with_patterns_keeps_the_commit_and_the_choice_of_files(hub, launch, tmp_path):
    first = hub.seed("org/model", FILES, branch="feature/x")
    hub.seed("org/model", {"config.json": b"{}"})
    model = "{hf: org/model, revision: feature/x, include: ['*.json'], exclude: ['tokenizer*']}"
    text = f"run: {{model: {model}}}\nrevision: ${{art:model,revision}}\ncheckpoint: {{save: out}}\n"
    (tmp_path / "out/step_1").mkdir(parents=True)
    assert revision_of(launch(text, "--job-id", "1").stdout) == first
    moved = hub.seed("org/model", {**FILES, "more.json": b"{}"}, branch="feature/x")
    asked = hub.operations()
    for job in ("1", "2"):  # the job's restart, and the next job of the chain
        assert revision_of(launch(text, "--job-id", job).stdout) == first
    assert hub.operations() == asked
    shutil.rmtree(tmp_path / "hf")
    assert revision_of(launch(text, "--job-id", "2").stdout) == first
    assert [path.name for path in (tmp_path / f"hf/hub/models--org--model/snapshots/{first}").iterdir()] == [
        "config.json"
    ]
    assert revision_of(launch(text, "--refresh", "--job-id", "3").stdout) == moved
    files = (tmp_path / f"hf/hub/models--org--model/snapshots/{moved}").iterdir()
    assert sorted(path.name for path in files) == ["config.json", "more.json"]


def test_a_pinned_commit_whose_files_were_cleaned_is_fetched_again_as_the_same(hub, launch, tmp_path):
    first = hub.seed("org/model", FILES)
    text = CONFIG.replace("@v1", "")
    launch(text, "--job-id", "7")
    hub.seed("org/model", {"config.json": b"{}"})
    shutil.rmtree(tmp_path / "hf")
    done = launch(text, "--job-id", "7")
    assert revision_of(done.stdout) == first, done.stderr
    snapshot = tmp_path / f"hf/hub/models--org--model/snapshots/{first}"
    assert {path.name for path in snapshot.iterdir()} == set(FILES)


def test_the_ranks_work_offline_where_every_id_is_pinned(hub, launch):
    commit = hub.seed("org/model", FILES, tag="v1")
    hub.seed("org/model", {"config.json": b"{}"})
    text = CONFIG + "policy: {model_name: org/model, tokenizer: {name: '${policy.model_name}'}}\n"
    done = launch(text, env={"HF_DATASETS_OFFLINE": "0"})
    given = variables(done)
    assert given["HF_HUB_OFFLINE"] == given["TRANSFORMERS_OFFLINE"] == "1", done.stderr
    assert given["HF_DATASETS_OFFLINE"] == "0", "the user's own setting wins"
    for name in ("main", "v1"):
        with open(os.path.join(view_of(done), "refs", name)) as file:
            assert file.read() == commit, "an id means the pinned commit in this job"
    assert "warning" not in done.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("policy: {model_name: Qwen/Q}", "policy.model_name (CFG:9) is Qwen/Q. Write `KEY: hf://Qwen/Q` under run:"),
        ("data: {train: {dataset_name: squad}}", "is the data set squad"),
        ("tokenizer: {name: '${oc.env:TOKENIZER}'}", "is ${oc.env:TOKENIZER}, which only the job knows"),
    ],
)  # fmt: skip
def test_an_id_that_is_not_pinned_keeps_the_network_and_is_named_in_one_line(hub, launch, tmp_path, more, said):
    hub.seed("org/model", FILES, tag="v1")
    done = launch(f"{CONFIG}{more}\n", env={"TOKENIZER": "from/environment"})
    assert not {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"} & set(variables(done)), done.stderr
    lines = [line for line in done.stderr.splitlines() if "HF_HUB_OFFLINE is not set" in line]
    assert len(lines) == 1
    assert said.replace("CFG", str(tmp_path / "cfg.yaml")) in lines[0]


def test_an_override_of_the_command_names_an_id_as_the_config_does(hub, launch):
    hub.seed("org/model", FILES, tag="v1")
    text = CONFIG + "policy: {model_name: other/model}\n"
    assert "HF_HUB_OFFLINE is not set" in launch(text).stderr
    done = launch(text, words=("policy.model_name=org/model",))
    assert variables(done)["HF_HUB_OFFLINE"] == "1", done.stderr
    done = launch(CONFIG, words=("+policy.model_name=other/model",))
    assert "HF_HUB_OFFLINE is not set" in done.stderr
    assert "other/model" in done.stderr


def test_who_switches_offline_off_keeps_it_off(hub, launch):
    hub.seed("org/model", FILES, tag="v1")
    given = variables(launch(env={"HF_HUB_OFFLINE": "0"}))
    assert given["HF_HUB_OFFLINE"] == "0"
    assert "TRANSFORMERS_OFFLINE" not in given
    assert "HF_HUB_CACHE" not in given


def test_a_launcher_inside_the_job_asks_the_hub_for_its_own_config(hub, launch, tmp_path):
    hub.seed("org/model", FILES, tag="v1")
    commit = hub.seed("org/other", FILES)
    inner = "run: {m: 'hf://org/other'}\nrevision: ${art:m,revision}\nmodel_name: ${art:m,id}\nx: {model_name: a/b}\n"
    (tmp_path / "inner.yaml").write_text(inner)
    command = ("sh", "-c", f"{sys.executable} -m nemotron_exec sh -c '{SHOW}' inner.yaml")
    done = launch(CONFIG + "tokenizer: {name: org/model}\n", command=command)
    assert revision_of(done.stdout) == commit, done.stderr
    assert variables(done)["HF_HUB_OFFLINE"] == "0", "the inner config names an id that is not pinned"
    assert variables(done)["HF_HUB_CACHE"] == str(tmp_path / "hf/hub")


def test_cache_dir_counts_where_hugging_face_has_no_setting_and_the_job_is_told(hub, launch, tmp_path, environ):
    hub.seed("org/model", FILES, tag="v1")
    del environ["HF_HOME"]
    text = CONFIG.replace("  id: ${art:model,id}\n", "")
    done = launch(text, "--cache-dir", "cache")
    assert variables(done)["HF_HUB_CACHE"] == str(tmp_path / "cache/huggingface/hub"), done.stderr
    assert (tmp_path / "cache/huggingface/hub/models--org--model").is_dir()


def test_without_the_network_a_filled_cache_starts_the_job(hub, launch, environ, tmp_path):
    hub.seed("org/model", FILES, tag="v1")
    filled = launch(CONFIG, "--resolve-only")
    assert filled.returncode == 0, filled.stderr
    assert json.loads(filled.stdout)["artifacts"][0]["type"] == "model"
    without = ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*without, "true"], check=False).returncode:
        pytest.fail("this machine lets nobody make a network namespace")
    done = subprocess.run(
        [*without, sys.executable, "-m", "nemotron_exec", "--job-id", "other", "sh", "-c", SHOW, "cfg.yaml"],
        cwd=tmp_path, env={**os.environ, **environ}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "id: org/model" in done.stdout
    assert variables(done)["HF_HUB_OFFLINE"] == "1"
    assert len([line for line in done.stderr.splitlines() if "warning" in line]) == 1


def test_nodes_without_a_shared_cache_each_fetch_the_same_commit(hub, nemotron_exec, environ, tmp_path):
    commit = hub.seed("org/model", FILES, tag="v1")
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    found = {}

    def node(rank):
        # Each node has its own disk under the same path: a directory that is bind-mounted in a mount namespace.
        (tmp_path / f"disk{rank}").mkdir()
        launcher = f"{sys.executable} -m nemotron_exec --job-id j"
        script = f"mount --bind disk{rank} hf && exec {launcher} sh -c 'ls hf/hub/*/snapshots/* && cat $0' cfg.yaml"
        found[rank] = subprocess.run(
            ["unshare", "--mount", "--map-root-user", "sh", "-c", script], cwd=tmp_path,
            env={**os.environ, **environ, "NEMOTRON_EXEC_NODE_RANK": str(rank), "NEMOTRON_EXEC_NNODES": "2"},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    (tmp_path / "hf").mkdir()
    (tmp_path / "state").mkdir()
    threads = [threading.Thread(target=node, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in range(2):
        assert found[rank].returncode == 0, found[rank].stderr
        assert set(FILES) <= set(found[rank].stdout.splitlines())
        assert revision_of(found[rank].stdout) == commit
        assert (tmp_path / f"disk{rank}/hub/models--org--model/snapshots/{commit}").is_dir()


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        ("hf://org/model@nothing", 125, "the model has no revision 'nothing'. Nearest that exist: main"),
        ("hf://org/gated", 125, "is gated, and there is no token"),
        ("hf://org/model:v1", 125, "The revision of a Hugging Face repository follows an @"),
    ],
)
def test_a_bad_reference_is_one_error_before_the_job(hub, launch, tmp_path, value, code, said):
    hub.seed("org/model", FILES)
    hub.seed("org/gated", FILES, gated="auto")
    done = launch(f"run:\n  model: {value}\na: ${{art:model,path}}\n", command=("touch", "started"))
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "cfg.yaml:2" in done.stderr
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    ("harm", "options", "code", "said"),
    [
        (lambda file: None, ["--digests"], 0, "1 versions, 0 errors, 0 notes"),
        (lambda file: file.write_bytes(b"1" * file.stat().st_size), [], 0, "0 errors"),
        (lambda file: file.write_bytes(b"1" * file.stat().st_size), ["--digests"], 1, "has another digest"),
        (lambda file: file.write_bytes(b"1"), [], 1, "has another size"),
        (lambda file: file.unlink(), [], 0, "1 notes"),
    ],
)
def test_verify_looks_at_the_sizes_and_on_request_at_the_digests(
    hub, launch, environ, tmp_path, harm, options, code, said
):
    hub.seed("org/model", FILES, tag="v1")
    launch(command=("true",))
    asked = hub.operations()
    (file,) = tmp_path.glob("hf/hub/models--org--model/snapshots/*/model.safetensors")
    harm(file.resolve())
    words = [sys.executable, "-m", "nemotron_exec.artifact_cli", "verify", "hf://org/model@v1", *options]
    done = subprocess.run(words, env={**os.environ, **environ}, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert said in " ".join((done.stdout + done.stderr).replace("│", " ").split())
    assert hub.operations() == asked


def test_the_commit_is_an_input_of_the_wandb_run(hub, launch):
    commit = hub.seed("org/model", FILES, tag="v1")
    code = "import wandb; run = wandb.init(mode='offline', project='p'); print(run.config['nemotron_exec'])"
    done = launch(command=(sys.executable, "-c", code))
    assert f"{{'inputs': ['hf://org/model@{commit}']}}" in done.stdout, done.stderr


def test_the_commit_is_an_input_of_a_checkpoint_and_stands_in_its_lineage(hub, launch, tmp_path):
    commit = hub.seed("org/model", FILES, tag="v1")
    (tmp_path / "save.py").write_text(
        "from nemo_rl.utils.checkpoint import CheckpointManager\n"
        "names = ('metric_name', 'keep_top_k', 'save_optimizer')\n"
        "config = dict.fromkeys(names) | {'checkpoint_dir': 'grpo', 'higher_is_better': True, 'save_period': 10}\n"
        "manager = CheckpointManager(config)\n"
        "manager.finalize_checkpoint(manager.init_tmp_checkpoint(10, {'step': 10}, None))\n"
    )
    doubles = str(ROOT / "tests/doubles/nemo_rl_released")
    done = launch(CONFIG, "--store", "store", command=(sys.executable, "save.py"), env={"PYTHONPATH": doubles})
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "store/grpo/v1/manifest.json").read_text())
    assert manifest["used_artifacts"] == [f"hf://org/model@{commit}"]
    graph = [sys.executable, "-m", "nemotron_exec.artifact_cli", "graph", "--store", "store", "grpo:latest"]
    shown = subprocess.run(graph, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"hf://org/model@{commit}" in shown.stdout, shown.stderr
    page = subprocess.run([*graph, "--format", "html"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"hf://org/model@{commit}" in page.stdout + page.stderr


@pytest.mark.torch
def test_nodes_over_the_network_each_fetch_the_same_commit(hub, nemotron_exec, environ, tmp_path):
    commit = hub.seed("org/model", FILES, tag="v1")
    hub.seed("org/model", {"config.json": b"{}"})
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = {}

    def node(rank):
        variables = {
            **environ,
            "HF_HOME": str(tmp_path / f"hf{rank}"), "NEMOTRON_EXEC_STATE_DIR": str(tmp_path / f"state{rank}"),
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
            "NEMOTRON_EXEC_NODE_RANK": str(rank), "NEMOTRON_EXEC_NNODES": "2",
            "MASTER_ADDR": "127.0.0.1", "NEMOTRON_EXEC_RENDEZVOUS_PORT": str(port),
        }  # fmt: skip
        words = ("--rendezvous", "c10d", "--job-id", "j", "cat", "cfg.yaml")
        found[rank] = nemotron_exec(*words, env=variables)

    threads = [threading.Thread(target=node, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in range(2):
        assert found[rank].returncode == 0, found[rank].stderr
        assert f"{tmp_path}/hf{rank}/hub/models--org--model/snapshots/{commit}" in found[rank].stdout
    assert hub.operations("info org/model@v1") == 1, "one node asks which commit the tag is"


def test_a_token_is_nowhere_in_what_is_written_or_said(hub, launch, tmp_path):
    hub.seed("org/private", FILES, private=True)
    text = "run: {model: 'hf://org/private'}\na: ${art:model,path}\n"
    done = launch(text, "-v", command=("cat",), env={"HF_TOKEN": TOKEN})
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    for directory, _, files in os.walk(tmp_path):
        for name in files:
            with open(os.path.join(directory, name), "rb") as file:
                assert TOKEN.encode() not in file.read(), name
