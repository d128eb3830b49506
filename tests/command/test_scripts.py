"""Finds the Hydra program of a command behind any starter."""

from __future__ import annotations

import shlex

import pytest

from nemotron_exec.command.read import read

HYDRA = "import hydra\n@hydra.main(version_base=None, config_path='conf', config_name='config')\ndef main(c): ...\n"

#  command: the word after which --config-path goes; None without a visible Hydra program
COMMANDS = {
    "python app.py": "app.py",
    "python -m pkg.train": "pkg.train",
    "python -m coverage run app.py": "app.py",
    "python -m coverage run -m pkg.train": "pkg.train",
    "coverage run --branch app.py": "app.py",
    "python -m cProfile -o prof app.py": "app.py",
    "python -m cProfile -m pkg.train": "pkg.train",
    "python -m pdb -c continue app.py": "app.py",
    "python -m debugpy --listen 5678 app.py": "app.py",
    "python -m debugpy --listen 5678 -m pkg.train": "pkg.train",
    "python -mcProfile app.py": "app.py",
    "python -m runpy pkg.train": "pkg.train",
    "python -um pkg.train": "pkg.train",
    "python launch.py --nodes 2 app.py": "app.py",
    "python launch.py -m pkg.train": "pkg.train",
    "python -Bumpkg.train": "-Bumpkg.train",
    "python -X dev -Im pkg.train": "pkg.train",
    "python -um coverage run -m pkg.train": "pkg.train",
    "python -m trace --count -C out app.py": "app.py",
    "python -X importtime -m pkg.train": "pkg.train",
    "python -Ximporttime -W ignore -u app.py": "app.py",
    "poetry run python -m pkg.train": "pkg.train",
    "uv run --with x python -m pkg.train": "pkg.train",
    "nsys profile -o out.py -t cuda python app.py": "app.py",
    "ncu --set full -o out python -m pkg.train": "pkg.train",
    "strace -f -o trace.py python app.py": "app.py",
    "singularity exec -B /x image.sif python app.py": "app.py",
    "xargs -I{} python app.py": "app.py",
    "catchsegv nohup stdbuf -oL timeout 5 python app.py": "app.py",
    "deepspeed --num_gpus 2 app.py": "app.py",
    "accelerate launch app.py": "app.py",
    "accelerate launch -m pkg.train": "pkg.train",
    "accelerate launch --num_processes 2 --module pkg.train": "pkg.train",
    "accelerate launch --module --debug pkg.train": "pkg.train",
    "accelerate launch --module runpy pkg.train": "pkg.train",
    "deepspeed --num_gpus 2 --module pkg.train": "pkg.train",
    "composer -n 2 --module=pkg.train": "--module=pkg.train",
    "torchrun --nproc-per-node 2 -m pkg.train": "pkg.train",
    "python -m torch.distributed.launch --nproc_per_node=1 --use_env app.py": "app.py",
    "python -m torch.distributed.launch --use-env -m pkg.train": "pkg.train",
    "ft_launcher --ignore-missing-fault-tol-cfg --nnodes 1 app.py": "app.py",
    "ft_launcher --a-flag-of-tomorrow app.py": "app.py",
    "torchrun --a-flag-of-tomorrow --nnodes 1 app.py": "app.py",
    "uv run app.py": "app.py",
    "numactl -N0 python app.py": "app.py",
    # The first script is the program, and the words after it are its arguments.
    "python plain.py app.py": None,
    "python plain.py -m pkg.train": None,
    "torchrun plain.py app.py": None,
    "python -m pkg.plain": None,
    "bash plain.sh": None,
}


@pytest.mark.parametrize(("command", "after"), COMMANDS.items())
def test_the_program_is_found(tmp_path, monkeypatch, command, after):
    monkeypatch.chdir(tmp_path)
    for name in ("conf", "pkg/conf"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("run: {data: 'blend:v1'}\npath: ${art:data,path}\n")
    for name in ("app.py", "pkg/train.py"):
        (tmp_path / name).write_text(HYDRA)
    for name in ("plain.py", "pkg/plain.py"):
        (tmp_path / name).write_text("print(1)\n")
    (tmp_path / "launch.py").write_text("import subprocess\n")
    words = shlex.split(command)
    configs = read(words, environ={"PATH": "/usr/bin:/bin"}).configs
    assert [words[config.index] for config in configs] == ([after] if after else [])


def test_a_command_that_ends_where_a_word_is_missing_names_no_program():
    assert read(["python", "-m", "runpy"]).configs == ()
    assert read(["env", "-C"]).around.directory == ""
    assert read(["sudo", "-u"]).around.user == ""


def test_a_launcher_that_changes_the_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub/conf").mkdir(parents=True)
    (tmp_path / "sub/conf/config.yaml").write_text("run: {data: 'blend:v1'}\npath: ${art:data,path}\n")
    (tmp_path / "sub/app.py").write_text(HYDRA)
    (config,) = read(shlex.split("env -C sub python app.py")).configs
    assert config.path == str(tmp_path / "sub/conf/config.yaml")
