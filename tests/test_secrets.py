"""No message of any part shows a password, a key or a signature."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nemotron_exec.message import Messages
from nemotron_exec.resolution.masking import mask_yaml
from nemotron_exec.sitecustomize.payload.notice import redact, redact_command

if TYPE_CHECKING:
    from pathlib import Path

KEY = "0123456789abcdef0123456789abcdef01234567"

TABLE = {
    "a password": ("at https://ann:hush@wandb.example/x", "at https://***@wandb.example/x"),
    "a user": ("sftp://ann@host/store", "sftp://***@host/store"),
    "keys of a bucket": ("s3://AKIA1:hush+/x@bucket/store", "s3://***@bucket/store"),
    "keys of a bucket, as a URI has them": ("s3://AKIA1:hush%2Fx@bucket/store", "s3://***@bucket/store"),
    "a signature": ("https://b.example/k?X-Amz-Signature=c0ffee&x=1 (403)", "https://b.example/k?*** (403)"),
    "both, in quotes": ("'http://a:b@h/k?sig=1'", "'http://***@h/k?***'"),
    "two of them": ("http://a:b@h http://c:d@i", "http://***@h http://***@i"),
    "a port, and an @ in a path": ("https://h:8080/a@b", "https://h:8080/a@b"),
    "an @ in a path": ("file:///home/ann@lab/x and https://h/a@b", "file:///home/ann@lab/x and https://h/a@b"),
    "an artifact": ("art://blend:v3, team/p/blend:latest", "art://blend:v3, team/p/blend:latest"),
    "nothing": ("/lustre/team/10.0.0.1@tcp:/x?y", "/lustre/team/10.0.0.1@tcp:/x?y"),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_redact(row: tuple[str, str]) -> None:
    given, expected = row
    assert redact(given) == expected


COMMAND = {
    "an option with =": ("--wandb-api-key=hush", "--wandb-api-key=***"),
    "an option with a word of its own": ("--password hush x", "--password *** x"),
    "a switch before another option": ("--use-auth-token --x y", "--use-auth-token --x y"),
    "an override": ("+logger.wandb.api_key=hush ++a.hf_token=hush", "+logger.wandb.api_key=*** ++a.hf_token=***"),
    "a password in a URL": ("--store=s3://ann:hush@b/x", "--store=s3://***@b/x"),
    "token alone": ("--token=hush hf.token=hush --token hush", "--token=*** hf.token=*** --token ***"),
    "the names of services": (
        "--hub-token=a +gitlabToken=b ~x.client_secret=c a[api_key]=d --db-pass e",
        "--hub-token=*** +gitlabToken=*** ~x.client_secret=*** a[api_key]=*** --db-pass ***",
    ),
    "a token of a name that says nothing": (
        "user_token=<user> user_token=aB3dE5fG7hI9jK1lM3nO --key 12",
        "user_token=<user> user_token=*** --key 12",
    ),
    "keys of a service, and several": (
        "--wandb-key a --openai_key=b --ngc-keys c --passwords d hf_tokens=e --api_keys=f",
        "--wandb-key *** --openai_key=*** --ngc-keys *** --passwords *** hf_tokens=*** --api_keys=***",
    ),
    "a variable inside an option": (
        "--env=WANDB_API_KEY=hush -e HF_TOKEN=hush",
        "--env=WANDB_API_KEY=*** -e HF_TOKEN=***",
    ),
    "tokens of a text": (
        "--eos_token_id 2 unk_token=<unk> --num-token 5 max_tokens=7 key=layer_norm stop_tokens=a --tokenizer t",
        "--eos_token_id 2 unk_token=<unk> --num-token 5 max_tokens=7 key=layer_norm stop_tokens=a --tokenizer t",
    ),
    "a variable in its place": (
        "hf.token=${oc.env:HF_TOKEN} --token=$HF_TOKEN --api-key=",
        "hf.token=${oc.env:HF_TOKEN} --token=$HF_TOKEN --api-key=",
    ),
    "what only looks like it": (
        "--tokenizer-type GPT2 pad_token=<pad> --sort-key a num_tokens=8 --keep-top-k 3 checkpoint.api_keyed=1",
        "--tokenizer-type GPT2 pad_token=<pad> --sort-key a num_tokens=8 --keep-top-k 3 checkpoint.api_keyed=1",
    ),
}


@pytest.mark.parametrize("row", COMMAND.values(), ids=COMMAND)
def test_redact_command(row: tuple[str, str]) -> None:
    given, expected = row
    assert redact_command(given.split()) == expected.split()


PIECES = {
    "shell": (
        "export HF_TOKEN=hush WANDB_API_KEY='hush'; torchrun --token=hush train.py pad_token=x",
        "export HF_TOKEN=*** WANDB_API_KEY='***'; torchrun --token=*** train.py pad_token=x",
    ),
    "JSON": ('{"token": "hush", "lr": 1, "eos_token": "</s>"}', '{"token": "***", "lr": 1, "eos_token": "</s>"}'),
    "a mapping of Hydra": ("+hub={token: hush, name: x}", "+hub={token: ***, name: x}"),
    "a header": ("Authorization: Bearer hush-hush", "Authorization: Bearer ***"),
    "a token that says what it is": ("use hf_abcdefghijklmnopqrstuv now", "use *** now"),
    "an option in a text": (
        "sh -c 'train --hf-token hush --eos-token x'",
        "sh -c 'train --hf-token *** --eos-token x'",
    ),
    "a list of tokens": ("tokenizer.special_tokens=[<pad>,<eos>]", "tokenizer.special_tokens=[<pad>,<eos>]"),
}


@pytest.mark.parametrize("row", PIECES.values(), ids=PIECES)
def test_a_word_that_is_a_piece_of_another_language(row: tuple[str, str]) -> None:
    given, expected = row
    assert redact_command([given]) == [expected]


YAML = {
    "a key": (
        "run:\n  wandb:\n    api_key: hush\n    project: p\n",
        "run:\n  wandb:\n    api_key: ***\n    project: p\n",
    ),
    "a flow mapping": ("hub: {token: 'hush', x: 1}\n", "hub: {token: ***, x: 1}\n"),
    "a block": ("a:\n  secret: |\n    hush\n    hush\n  b: 1\n", "a:\n  secret: ***\n  b: 1\n"),
    "an alias": ("x: &k hush\ny: {password: *k}\n", "x: ***\ny: {password: *k}\n"),
    "a list": ("a:\n- api_key: hush\n- pad_token: <eos>\n", "a:\n- api_key: ***\n- pad_token: <eos>\n"),
    "a mapping and a list under a secret's name": (
        "secrets: {hf: hush, x: [hush]}\npasswords:\n- hush\napi_key: {value: hush}\n",
        "secrets: {hf: ***, x: [***]}\npasswords:\n- ***\napi_key: {value: ***}\n",
    ),
    "variables, as Kubernetes lists them": (
        "env:\n- name: HF_TOKEN\n  value: hush\n- name: LR\n  value: '1'\n- WANDB_API_KEY=hush\n",
        "env:\n- name: HF_TOKEN\n  value: ***\n- name: LR\n  value: '1'\n- WANDB_API_KEY=***\n",
    ),
    "a command": ("cmd: train --hf-token hush --eos-token x\n", "cmd: train --hf-token *** --eos-token x\n"),
    "JSON in a text": ('extra: \'{"token": "hush", "a": 1}\'\n', 'extra: \'{"token": "***", "a": 1}\'\n'),
    "the tokens of a text": (
        "pad_token: <pad>\neos_token_id: 2\ntokenizer: {type: x}\nkey: a\n",
        "pad_token: <pad>\neos_token_id: 2\ntokenizer: {type: x}\nkey: a\n",
    ),
    "a URL": ("store: s3://ann:hush@b/x\n", "store: s3://***@b/x\n"),
    "an expression": ("token: ${oc.env:HF_TOKEN}\n", "token: ${oc.env:HF_TOKEN}\n"),
    "no YAML": ("a: [\ntoken: hush\n", "a: [\ntoken: ***\n"),
}


@pytest.mark.parametrize("row", YAML.values(), ids=YAML)
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["", "BOM"])
def test_mask_yaml(row: tuple[str, str], mark: str) -> None:
    given, expected = row
    assert mask_yaml(mark + given) == mark + expected


VARIABLES = {
    "TEAM_TOKEN": "***",
    "aws": "hush-hush",
    "DB_PASSWORD": "***",
    "GOOGLE_APPLICATION_CREDENTIALS_FILE": "hush-hush",
    "SIGNING_KEY_2": "***",
}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_is_secret_by_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "hush-hush")
    assert redact("it is hush-hush") == f"it is {VARIABLES[name]}"


def test_the_value_of_a_secret_variable_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", "short")
    Messages().error(f"the key {KEY} is short")
    Messages(log_format="json").info("fields", url=f"https://u:{KEY}@h")
    error = capsys.readouterr().err
    assert KEY not in error
    assert "the key *** is short" in error
    assert "https://***@h" in error


STARTS = {
    "a store with a password": ("manifest", {"NEMO_ARTIFACT_ROOT": "nosuch://ann:hush@127.0.0.1/store"}),
    "a server with a password": ("wandb", {"WANDB_BASE_URL": "http://ann:hush@127.0.0.1:9"}),
    "a server that is none": ("wandb", {"WANDB_BASE_URL": "http://ann:hush@"}),
}


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("row", STARTS.values(), ids=STARTS)
def test_an_error_of_the_launcher_shows_no_password(
    tmp_path: Path, row: tuple[str, dict[str, str]], log_format: str
) -> None:
    backend, environ = row
    (tmp_path / "cfg.yaml").write_text("run:\n  data: blend:v1\nx: ${art:data,path}\n")
    words = ["--backend", backend, "--log-format", log_format, "-v", "--timeout", "5", "true", "cfg.yaml"]
    done = subprocess.run(
        [sys.executable, "-m", "nemotron_exec", *words],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "WANDB_API_KEY": KEY,
            "WANDB_PROJECT": "p",
            "WANDB_ENTITY": "e",
            "NO_PROXY": "*",
            **environ,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (75, 125), done.stderr
    assert "hush" not in done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr


def test_a_secret_of_the_command_is_in_no_file_and_no_plan(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "cfg.yaml").write_text(
        "run: {data: 'blend:latest'}\nlogger: {token: hush-yaml}\npath: ${art:data,path}\nat: http://a:hush-yaml@h\n"
    )
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("NEMO", "WANDB"))},
        "NEMO_ARTIFACT_ROOT": str(tmp_path / "store"),
        "NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state"),
    }

    def run(module: str, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout + done.stderr

    run("nemotron_exec.artifact_cli", "add", "blend", "data")
    words = ["python3", "-c", "pass", "cfg.yaml", "logger.api_key=hush-hush", "--token=hush-hush", "pad_token=shown"]
    shown = [
        run("nemotron_exec", *options, *words) for options in ([], ["--dry-run"], ["--dry-run", "--log-format=json"])
    ]
    assert "'logger.api_key=***' '--token=***' pad_token=shown" in shown[1]
    assert "hush-yaml" not in "".join(shown)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "run.json" for path in files)
    for text in [*shown, *(path.read_text(errors="replace") for path in files)]:
        assert "hush-hush" not in text
