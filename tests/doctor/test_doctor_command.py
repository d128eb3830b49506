"""`--doctor` asks the command's own interpreter and resolves the command's config."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import pytest

from nemotron_exec.doctor.own_interpreter import is_the_launchers, start_of


@pytest.fixture
def doctor(nemotron_exec, tmp_path, bare_path):
    """Runs the doctor on a PATH with this Python and a shell; the findings by subject, and the exit code."""

    def run(*words, **env):
        env = {"PATH": str(bare_path), "NEMO_ARTIFACT_ROOT": str(tmp_path / "store"), **env}
        done = nemotron_exec("--log-format", "json", "--doctor", *words, env=env)
        assert done.returncode in (0, 1), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], done.returncode

    return run


def _about(found, subject, level):
    return [one["found"] for one in found if (one["subject"], one["level"]) == (subject, level)]


def _script(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(0o755)
    return f"./{name}"


def test_a_reference_that_does_not_exist_is_a_fault_and_nothing_stays(doctor, tmp_path):
    (tmp_path / "cfg.yaml").write_text("run: {data: 'blnd:latest'}\npath: ${art:data,path}\n")
    before = sorted(tmp_path.rglob("*"))
    found, code = doctor("python", "train.py", "cfg.yaml")
    (said,) = _about(found, "config", "fault")
    assert "blnd" in said
    assert code == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_what_the_references_are_here_is_said(doctor, tmp_path):
    version = tmp_path / "store/blend/v3"
    version.mkdir(parents=True)
    (version / "manifest.json").write_text(
        json.dumps({"name": "blend", "version": 3, "type": "dataset", "path": str(tmp_path), "created_at": ""})
    )
    (version.parent / "latest").write_text("v3")
    (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:latest'}\npath: ${art:data,path}\n")
    found, _ = doctor("python", "train.py", "cfg.yaml", SLURM_NTASKS="2", SLURM_PROCID="1", SLURM_JOB_ID="7")
    assert _about(found, "config", "ok") == [f"data: blend:v3 -> {tmp_path}"]


def test_a_wrapper_that_keeps_the_injector_out_is_a_fault(doctor, tmp_path):
    good = _script(tmp_path, "good", '#!/bin/sh\nexec "$@"\n')
    bad = _script(tmp_path, "bad", '#!/bin/sh\nPYTHONPATH=/elsewhere exec "$@"\n')
    tool = tmp_path / "tool"
    tool.mkdir()
    (tool / "sitecustomize.py").write_text("")  # it does not run the sitecustomize that it hides
    hides = _script(tmp_path, "hides", f'#!/bin/sh\nPYTHONPATH={tool}:$PYTHONPATH exec "$@"\n')
    assert _about(doctor(good, "python", "-u", "train.py")[0], "python", "fault") == []
    for wrapper in (bad, hides):
        (said,) = _about(doctor(wrapper, "python", "train.py")[0], "python", "fault")
        assert f"{wrapper} python" in said
        assert "the injector does not run" in said


def test_what_cannot_be_asked_is_said_to_be_unknown(doctor, tmp_path):
    train = _script(tmp_path, "train.sh", "#!/bin/sh\nexit 0\n")
    assert any("unknown" in text for text in _about(doctor(train)[0], "python", "ok"))


STARTS = {
    "python": (("python", "-u", "-X", "dev", "t.py"), ["python", "-u", "-X", "dev", "-c"]),
    "a module": (("python3.11", "-m", "pkg"), ["python3.11", "-c"]),
    "a wrapper": (("uv", "run", "python", "t.py"), ["uv", "run", "python", "-c"]),
    "on other nodes": (("srun", "-n", "2", "python", "t.py"), None),
    "no Python": (("true",), None),
}


@pytest.mark.parametrize("row", STARTS.values(), ids=STARTS)
def test_start_of(row):
    words, expected = row
    assert start_of(words, {"PATH": "/usr/bin:/bin"}).words == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("#!/opt/x/bin/python3 -sE", ["/opt/x/bin/python3", "-sE", "-c"]),
        ("#!/usr/bin/env -S python3 -I", ["/usr/bin/env", "python3", "-I", "-c"]),
        ("#!/bin/sh", None),
    ],
)
def test_the_first_line_of_a_script_names_its_interpreter(tmp_path, line, expected):
    script = tmp_path / "torchrun"
    script.write_text(f"{line}\n")
    script.chmod(0o755)
    assert start_of((str(script), "t.py"), {}).words == expected


def test_a_pex_is_asked_by_its_own_variable(tmp_path):
    path = tmp_path / "app.pex"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PEX-INFO", "{}")
    path.chmod(0o755)
    start = start_of((str(path), "t.py"), {})
    assert (start.words, start.variables) == ([str(path), "-c"], {"PEX_INTERPRETER": "1"})


@pytest.mark.ci
def test_a_real_pex_does_not_get_the_injector_and_the_doctor_says_so(doctor, nemotron_exec, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "app.py").write_text(
        "import sys; print('INJECTED', any(getattr(one, 'nemotron_exec', False) for one in sys.meta_path))\n"
    )
    words = ["-D", str(source), "-m", "app", "-o", "app.pex", "--no-pypi", "--python-shebang", sys.executable]
    environ = {**os.environ, "PEX_ROOT": str(tmp_path / "pex-root")}
    subprocess.run([sys.executable, "-m", "pex", *words], cwd=tmp_path, env=environ, check=True, capture_output=True)
    environ = {"PEX_ROOT": str(tmp_path / "pex-root")}
    assert nemotron_exec("./app.pex", env=environ).stdout == "INJECTED False\n"
    found, code = doctor("./app.pex", **environ)
    (said,) = _about(found, "python", "fault")
    assert said.startswith("./app.pex (a pex)")
    assert said.endswith("the injector does not run")
    assert code == 1


def test_a_script_whose_first_line_isolates_its_python_is_a_fault(doctor, tmp_path):
    isolated = _script(tmp_path, "isolated", f"#!{sys.executable} -I\n")
    found, code = doctor(isolated)
    (said,) = _about(found, "command", "fault")
    assert "-I" in said
    assert code == 1


def test_the_launchers_own_python_is_known_by_what_it_lacks():
    assert is_the_launchers(sys.prefix, [])
    assert not is_the_launchers(sys.prefix, ["torch"])
    assert not is_the_launchers("/usr", [])
