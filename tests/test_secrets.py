"""No message shows a password, a key or a signature, whoever says it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nemotron_exec.message import Messages
from nemotron_exec.sitecustomize.payload.notice import redact

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
