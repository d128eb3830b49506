"""Text of a repository, a card, a cache or an address is data: it names no file elsewhere, and is no expression."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from hub_backend import TOKEN
from tiny_model import FILES

CONFIG = "run: {model: 'hf://org/model'}\npath: ${art:model,path}\n"


@pytest.fixture
def environ(hub, tmp_path):
    return {**hub.environ(tmp_path / "hf"), "NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state")}


@pytest.fixture
def launch(nemotron_exec, environ, tmp_path):
    def run(text=CONFIG, *options, env=None, command=("cat",)):
        (tmp_path / "cfg.yaml").write_text(text)
        return nemotron_exec(*options, *command, "cfg.yaml", env={**environ, **(env or {})})

    return run


@pytest.mark.parametrize("name", ["../../../../evil", "/evil", "a/../../../../../evil", ".."])
def test_a_file_name_that_leads_out_of_a_repository_is_refused(hub, launch, tmp_path, name):
    hub.seed("org/model", {"config.json": b"{}", name: b"x" * 77})
    done = launch()
    assert done.returncode == 125
    assert f"its file {name!r} has a name that leads out of the repository" in done.stderr
    assert hub.operations("(HEAD|GET|LFS) .*") == 0
    assert [path for path in tmp_path.rglob("*evil*") if path.name == "evil"] == []
    assert not os.path.exists("/evil")


@pytest.mark.parametrize("name", ["a//evil", "evil\n", "-evil", "$(evil)", "é vil"])
def test_an_odd_file_name_is_a_file_of_the_snapshot(hub, launch, tmp_path, name):
    hub.seed("org/model", {"config.json": b"{}", name: b"x" * 77})
    done = launch()
    assert done.returncode == 0, done.stderr
    (snapshot,) = tmp_path.glob("hf/hub/models--org--model/snapshots/*")
    assert (snapshot / name).stat().st_size == 77


@pytest.mark.parametrize(
    "text", ["${oc.env:HOME}", "${art:model,path}", "\\${x}", "${", "a: {b: [c]}", "\u2028#x", "$HOME"]
)
def test_text_of_a_card_or_config_is_never_an_expression(hub, launch, tmp_path, text):
    hub.seed("org/model", {"config.json": json.dumps({"chat": text}).encode()}, card={"license": text})
    (tmp_path / "load.py").write_text(
        "import sys, omegaconf, json; c = omegaconf.OmegaConf.load(sys.argv[1])\n"
        "print(json.dumps([c.license, c.chat, c.inside]))\n"
    )
    config = "license: ${art:model,license}\nchat: ${art:model,metadata.chat}\ninside: 'x-${art:model,license}-x'\n"
    done = launch(CONFIG + config, command=(sys.executable, "load.py"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [text, text, f"x-{text}-x"]


def test_a_model_and_a_data_set_of_one_name_are_two(hub, launch):
    model = hub.seed("org/same", FILES)
    data = hub.seed("org/same", {"train.jsonl": b"{}"}, kind="dataset")
    done = launch(
        "run: {model: 'hf://org/same', data: 'hf://datasets/org/same'}\n"
        "a: ${art:model,path}\nb: ${art:data,path}\nc: ${art:model,id}\nd: ${art:data,id}\n"
    )
    found = yaml.safe_load(done.stdout)
    assert found["a"].endswith(f"models--org--same/snapshots/{model}")
    assert found["b"].endswith(f"datasets--org--same/snapshots/{data}")
    assert found["c"] == found["d"] == "org/same"


@pytest.mark.parametrize("revision", ["feature/new/thing", "refs%2Fpr%2F3"])
def test_a_revision_with_slashes_is_one_name_for_the_hub_the_cache_and_the_ranks(hub, launch, revision):
    plain = revision.replace("%2F", "/")
    commit = hub.seed("org/model", FILES, branch=plain)
    text = f"run: {{model: 'hf://org/model@{revision}'}}\nmodel_name: ${{art:model,id}}\n"
    done = launch(
        text, command=("sh", "-c", f"cat $HF_HUB_CACHE/models--org--model/refs/{plain}; env | grep OFFLINE; true")
    )
    assert commit in done.stdout, done.stderr
    assert "HF_HUB_OFFLINE=1" in done.stdout


def test_a_password_in_the_address_and_a_token_are_in_no_message(hub, launch, environ):
    hub.seed("org/model", FILES)
    hub.seed("org/gated", FILES, gated="manual")
    secret = "Pa55wordOfTheMirror"
    environ["HF_ENDPOINT"] = hub.url.replace("://", f"://somebody:{secret}@")
    for model in ("org/model", "org/gated", "org/none", "org/model@v9"):
        for token in ({}, {"HF_TOKEN": TOKEN}, {"HF_TOKEN": "hf_AnotherTokenThatIsWrong"}):
            done = launch(f"run: {{model: 'hf://{model}'}}\na: ${{art:model,path}}\n", "-v", env=token)
            said = done.stdout + done.stderr
            assert secret not in said, said
            assert not any(value in said for value in token.values())


def test_a_link_in_the_cache_has_no_file_elsewhere_removed(hub, launch, tmp_path):
    commit = hub.seed("org/model", {"config.json": b"{}", "sub/model.safetensors": b"1" * 100})
    assert launch().returncode == 0
    snapshot = tmp_path / f"hf/hub/models--org--model/snapshots/{commit}"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/model.safetensors").write_text("another size")
    (snapshot / "sub/model.safetensors").unlink()
    (snapshot / "sub").rmdir()
    (snapshot / "sub").symlink_to(tmp_path / "mine")
    done = launch(CONFIG.replace("org/model'", f"org/model@{commit}'"), "--job-id", "second")
    assert (tmp_path / "mine/model.safetensors").read_text() == "another size"
    assert done.returncode != 0
    assert f"{snapshot / 'sub'}" in done.stderr


def test_without_the_extra_one_error_has_the_line_for_pip(hub, environ, tmp_path):
    hub.seed("org/model", FILES)
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking/huggingface_hub.py").write_text("raise ImportError('No module named huggingface_hub')\n")
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    program = "import sys; sys.path.insert(0, 'lacking'); from nemotron_exec.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "cat", "cfg.yaml"],
        cwd=tmp_path, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 125
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "pip install 'huggingface_hub>=0.26'" in line


@pytest.mark.parametrize(
    "record",
    [b"[]", b"{", b'{"schema": 1, "asked_at": "", "card": {}, "files": {"../x": {"size": 1}}}', b"\xff" * 99,
     b'{"schema": 1, "asked_at": "", "card": {}, "files": {"config.json": {"size": -1, "oid": "../../../x"}}}'],
)  # fmt: skip
def test_a_record_that_somebody_has_written_is_not_believed(hub, launch, tmp_path, record):
    commit = hub.seed("org/model", FILES)
    assert launch().returncode == 0
    (tmp_path / f"hf/hub/models--org--model/nemotron-exec/{commit}.json").write_bytes(record)
    done = launch(CONFIG, "--job-id", "second")
    assert done.returncode == 0, done.stderr
    assert set(os.listdir(tmp_path / f"hf/hub/models--org--model/snapshots/{commit}")) == set(FILES)
