"""The choice between W&B and the manifest store by the environment alone, and the places of a key."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nemotron_exec.errors import LaunchError
from nemotron_exec.stores.backend import choose_backend
from nemotron_exec.stores.wandb.credentials import find_credentials
from nemotron_exec.stores.wandb.settings import find_setting, run_mode, wandb_base_url

if TYPE_CHECKING:
    from pathlib import Path

KEY = "local-" + "0123456789" * 4


@pytest.mark.parametrize(
    ("requested", "environ", "project", "key", "backend", "reason"),
    [
        ("auto", {}, "p", True, "wandb", "a W&B project and a key"),
        ("auto", {"WANDB_PROJECT": "p"}, None, True, "wandb", "a W&B project and a key"),
        ("auto", {"WANDB_MODE": "online"}, "p", True, "wandb", "a W&B project and a key"),
        ("auto", {}, None, True, "manifest", "no W&B project"),
        ("auto", {}, "p", False, "manifest", "no W&B API key"),
        ("auto", {"WANDB_MODE": "offline"}, "p", True, "manifest", "WANDB_MODE=offline"),
        ("auto", {"WANDB_MODE": "disabled"}, "p", True, "manifest", "WANDB_MODE=disabled"),
        ("wandb", {"WANDB_MODE": "offline"}, None, True, "wandb", "--backend wandb"),
        ("manifest", {}, "p", True, "manifest", "--backend manifest"),
    ],
)
def test_the_choice(
    requested: str, environ: dict[str, str], project: str | None, key: bool, backend: str, reason: str
) -> None:
    chosen, said = choose_backend(requested, environ, project, key=key)
    assert chosen == backend
    assert reason in said


def test_wandb_without_a_key_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(LaunchError, match=r"no W&B API key.*WANDB_API_KEY.*netrc.*wandb login"):
        choose_backend("wandb", {}, "p", key=False)


def test_the_environments_key_wins(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    (tmp_path / ".netrc").chmod(0o600)
    environ = {"HOME": str(tmp_path)}
    found = find_credentials(environ)
    assert found is not None
    assert (found.source, found.key) == (str(tmp_path / ".netrc"), KEY)
    assert KEY not in repr(found)
    found = find_credentials({**environ, "WANDB_API_KEY": "other"})
    assert found is not None
    assert (found.source, found.key) == ("WANDB_API_KEY", "other")
    found = find_credentials({**environ, "WANDB_IDENTITY_TOKEN_FILE": "/token"})
    assert found is not None
    assert (found.source, found.key) == ("WANDB_IDENTITY_TOKEN_FILE", None)


@pytest.mark.parametrize("host", ["wandb.example.com:8080", "wandb.example.com"])
def test_netrc_is_asked_for_the_server_in_use(tmp_path: Path, host: str) -> None:
    (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    environ = {"HOME": "/nonexistent", "NETRC": str(tmp_path / "netrc")}
    assert find_credentials(environ) is None
    assert find_credentials({**environ, "WANDB_BASE_URL": "https://wandb.example.com:8080/"}) is not None


def test_wandbs_settings_files_are_read(tmp_path: Path) -> None:
    (tmp_path / ".config" / "wandb").mkdir(parents=True)
    (tmp_path / ".config" / "wandb" / "settings").write_text(
        f"[default]\nbase_url = https://own.example.com/\napi_key = {KEY}\n"
    )
    environ = {"HOME": str(tmp_path), "WANDB_DIR": str(tmp_path)}
    assert wandb_base_url(environ) == "https://own.example.com"
    found = find_credentials(environ)
    assert found is not None
    assert found.key == KEY


@pytest.mark.parametrize("host", ["api.wandb.ai", "api.forge.coreweave.com"])
def test_netrc_may_call_the_hosted_service_by_either_name(tmp_path: Path, host: str) -> None:
    (tmp_path / ".netrc").write_text(f"machine {host} login user password {KEY}\n")
    (tmp_path / ".netrc").chmod(0o600)
    found = find_credentials({"HOME": str(tmp_path)})
    assert found is not None
    assert found.key == KEY


@pytest.mark.parametrize("content", ["not a netrc {", "\0", "machine api.wandb.ai"])
def test_a_netrc_that_cannot_be_read_holds_no_key(tmp_path: Path, content: str) -> None:
    (tmp_path / ".netrc").write_text(content)
    assert find_credentials({"HOME": str(tmp_path), "WANDB_DIR": str(tmp_path)}) is None


def test_the_choice_does_not_import_wandb() -> None:
    code = (
        "import sys; from nemotron_exec.stores import backend; from nemotron_exec.stores.wandb import store\n"
        "backend.choose_backend('manifest', {}, None, key=False);"
        "sys.exit('wandb' in sys.modules or 'requests' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_settings_file_of_the_directory_wins_over_the_users_and_a_variable_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home/.config/wandb").mkdir(parents=True)
    (tmp_path / "home/.config/wandb/settings").write_text(
        "[default]\nentity = users\nproject = users\nmode = offline\nbase_url = https://users.example\n"
    )
    (tmp_path / "job/wandb").mkdir(parents=True)
    (tmp_path / "job/wandb/settings").write_text("[default]\nproject = jobs\n")
    monkeypatch.chdir(tmp_path / "job")
    environ = {"HOME": str(tmp_path / "home"), "WANDB_DIR": "/elsewhere", "WANDB_API_KEY": KEY}

    def found(name: str, **more: str) -> str:
        setting = find_setting({**environ, **more}, name)
        assert setting is not None
        return setting.value

    assert (found("entity"), found("project")) == ("users", "jobs")
    assert found("project", WANDB_PROJECT="variables") == "variables"
    assert run_mode(environ).value == "offline"
    chosen, reason = choose_backend("auto", environ, None, key=True)
    assert chosen == "manifest"
    assert "mode = offline in" in reason
    assert choose_backend("auto", {**environ, "WANDB_MODE": "online"}, None, key=True)[0] == "wandb"


def test_these_are_the_values_that_the_client_uses(tmp_path: Path) -> None:
    for place, text in (("home/.config/wandb", "entity = users\nproject = users\n"), ("job/wandb", "project = jobs\n")):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "settings").write_text("[default]\n" + text)
    environ = {
        "HOME": str(tmp_path / "home"),
        "PATH": os.environ["PATH"],
        "WANDB_DIR": str(tmp_path),
        "WANDB_MODE": "shared",
        "WANDB_BASE_URL": "https://wandb.example.com",
    }
    code = "import wandb; s = wandb.setup().settings; print(s.entity, s.project, s.mode, s.base_url)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "job", env=environ, capture_output=True, text=True, check=True
    )
    ours = (
        "import os; from nemotron_exec.stores.wandb.settings import *\n"
        "print(*(find_setting(os.environ, n).value for n in ('entity', 'project')), run_mode(os.environ).value,"
        " wandb_base_url(os.environ))"
    )
    mine = subprocess.run(
        [sys.executable, "-c", ours], cwd=tmp_path / "job", env=environ, capture_output=True, text=True, check=True
    )
    assert mine.stdout == done.stdout
