"""Wrappers in front of the program change its directory or its user."""

from __future__ import annotations

import shlex

import pytest

from nemotron_exec.command.read import read
from nemotron_exec.command.wrappers import surroundings

DIRECTORIES = {
    "env -C sub python t.py": "sub",
    "env -Csub A=1 python t.py": "sub",
    "env --chdir=sub python t.py": "sub",
    "env --chdir sub python t.py": "sub",
    "uv run --directory sub t.py": "sub",
    "uv --directory=sub run python t.py": "sub",
    "srun -N2 -D /x python t.py": "/x",
    "srun --chdir=/x python t.py": "/x",
    "mpirun -np 2 -wdir sub python t.py": "sub",
    "mpirun --wdir sub python t.py": "sub",
    "mpiexec -wdir sub python t.py": "sub",
    "/usr/bin/sudo --chdir=sub python t.py": "sub",
    "srun -D /x env -C sub python t.py": "/x/sub",
    "conda run -n e --cwd sub python t.py": "sub",
    "poetry -C sub run python t.py": "sub",
    "make -C sub train CONFIG=cfg.yaml": "sub",
    "systemd-run --working-directory=/x python t.py": "/x",
    "bwrap --chdir /x python t.py": "/x",
    "apptainer exec --pwd /x a.sif python t.py": "/x",
    "singularity exec --cwd=/x a.sif python t.py": "/x",
    "srun --container-image=a --container-workdir=/x python t.py": "/x",
    "docker run -w /x image python t.py": "/x",
    "ch-run --cd /x image -- python t.py": "/x",
    "ray job submit --working-dir sub -- python t.py": "sub",
    """sh -c 'cd sub && exec "$@"' _ python t.py""": "sub",
    """bash -lc 'set -e; cd sub; cd deeper; "$0" "$@"' python t.py""": "sub/deeper",
    """env -C sub sh -c 'cd deeper && exec "$@"' _ python t.py""": "sub/deeper",
    """sh -c 'exec "$@"' _ python t.py""": "",
    """sh -c 'cd sub other; exec "$@"' _ python t.py""": "sub",
    """bash -c 'pushd sub >/dev/null; exec "$@"' _ python t.py""": "sub",
    """bash -c 'if cd sub; then "$@"; fi' _ python t.py""": "sub",
    # These options belong to the program, not to a wrapper.
    "python t.py -C sub": "",
    "python t.py --directory sub": "",
    "torchrun --nproc-per-node 1 t.py --chdir sub": "",
    "python -m pkg --chdir sub": "",
}


@pytest.mark.parametrize(("command", "directory"), DIRECTORIES.items())
def test_the_directory_that_a_wrapper_changes_to(command, directory):
    assert read(shlex.split(command)).around.directory == directory


UNKNOWN = {
    "docker run image python t.py": "docker",
    "ssh node python t.py": "ssh",
    "kubectl exec pod -- python t.py": "kubectl",
    "chroot /x python t.py": "chroot",
    "srun --chdir=/x/%j python t.py": "srun",
    "su - alice -c x": "su",
    """sh -c 'cd "$HOME" && exec "$@"' _ python t.py""": "sh",
    "srun --container-image=a python t.py": "srun",
    "apptainer exec a.sif python t.py": "apptainer",
    "enroot start a python t.py": "enroot",
    "ray job submit -- python t.py": "ray",
    "sky exec cluster python t.py": "sky",
    "shifter --image=a python t.py": "shifter",
    "systemd-nspawn -D /x python t.py": "systemd-nspawn",
    "conda run -n ray python t.py": "",
    "srun -N2 python t.py": "",
    "srun -l python t.py": "",
    "bash -l run.sh": "",
    "apptainer --version": "",
    "python t.py docker": "",
    "numactl -N0 python t.py": "",
}


@pytest.mark.parametrize(("command", "name"), UNKNOWN.items())
def test_a_wrapper_whose_files_are_others(command, name):
    assert read(shlex.split(command)).around.elsewhere == name


USERS = {
    "gosu alice python t.py": "alice",
    "gosu alice:users python t.py": "alice",
    "su-exec 1000 python t.py": "1000",
    "setpriv --reuid=1000 --clear-groups python t.py": "1000",
    "setpriv --reuid alice python t.py": "alice",
    "su alice -c 'python t.py'": "alice",
    "su - alice -c x": "alice",
    "su -s /bin/sh alice -c x": "alice",
    "su -g users alice": "alice",
    "su -c x": "root",
    "sudo -u alice python t.py": "alice",
    "sudo -ualice python t.py": "alice",
    "sudo python t.py": "",
    "runuser -u alice -- python t.py": "alice",
    "runuser --user=alice -- python t.py": "alice",
    "runuser alice -c x": "alice",
    "su --user=bob": "root",
    "sudo -uab python t.py": "ab",
    "sudo -ua python t.py": "a",
    "s6-setuidgid alice python t.py": "alice",
    "chpst -u alice python t.py": "alice",
    "python t.py -u alice": "",
}


@pytest.mark.parametrize(("command", "user"), USERS.items())
def test_the_user_that_a_wrapper_changes_to(command, user):
    words = shlex.split(command)
    assert surroundings(words[: next((at for at, word in enumerate(words) if word == "python"), None)]).user == user


HYDRA = "import hydra\n@hydra.main(version_base=None, config_path=None, config_name='config')\ndef main(c): ...\n"
CONFIG_PATHS = {
    "python app.py --config-path conf": "sub/conf",
    "python app.py --config-path=conf": "sub/conf",
    "python app.py -cp conf": "sub/conf",
    "python app.py --config-dir conf": "sub/conf",
    "python app.py --config-path pkg://pkg.inner": "sub/pkg/inner",
    "python app.py --config-path=pkg://pkg.inner": "sub/pkg/inner",
    "python -m app --config-path conf": "sub/conf",
    "python -m pkg.app --config-path inner": "sub/pkg/inner",
    "python -m pkg.app --config-path pkg://pkg.inner": "sub/pkg/inner",
    "torchrun --nproc-per-node 1 app.py --config-path conf": "sub/conf",
}


@pytest.mark.parametrize(("command", "directory"), CONFIG_PATHS.items())
def test_hydra_looks_for_its_config_where_the_wrapper_starts_it(tmp_path, monkeypatch, command, directory):
    monkeypatch.chdir(tmp_path)
    for below in ("", "sub/"):  # the same names exist in both directories
        for name in ("conf", "pkg/inner"):
            (tmp_path / below / name).mkdir(parents=True)
            (tmp_path / below / name / "config.yaml").write_text("run: {data: 'blend:v1'}\npath: ${art:data,path}\n")
        for name in ("app.py", "pkg/app.py"):
            (tmp_path / below / name).write_text(HYDRA)
        for name in ("pkg", "pkg/inner"):
            (tmp_path / below / name / "__init__.py").touch()
    for wrapper in ("env -C sub", "uv run --directory sub", "srun -D sub"):
        (config,) = read(shlex.split(f"{wrapper} {command}"), environ={"PATH": "/usr/bin:/bin"}).configs
        assert config.path == str(tmp_path / directory / "config.yaml"), wrapper


def test_a_script_of_a_shell_that_changes_the_directory_is_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.sh").write_text('set -e\ncd sub\nexec "$@"\n')
    assert surroundings(["bash", "run.sh", "python", "t.py"]).directory == "sub"
    assert surroundings(["./run.sh", "python", "t.py"]).directory == "sub"
    (tmp_path / "run.sh").write_text('cd "$(dirname "$0")"\nexec "$@"\n')
    assert surroundings(["bash", "run.sh", "python", "t.py"]).elsewhere == "bash"
    (tmp_path / "run.sh").write_text('echo start\nexec "$@"\n')
    assert surroundings(["bash", "run.sh", "python", "t.py"]).elsewhere == ""
