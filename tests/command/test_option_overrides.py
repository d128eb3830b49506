"""`--dataset.path VALUE`: overrides as options, as NeMo Automodel, jsonargparse and tyro are given them."""

from __future__ import annotations

import pytest

from nemotron_exec.command.read import read


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--dataset.path /data", [(3, ("dataset", "path"), "/data")]),
        ("--dataset.path=/data", [(2, ("dataset", "path"), "/data")]),
        (
            "--checkpoint.is_async --lr.value 1e-4",
            [(2, ("checkpoint", "is_async"), "true"), (4, ("lr", "value"), "1e-4")],
        ),
        ("--seed 5 --run.data x --rdzv-backend c10d", []),
        ("--a.b k=v --c.d", [(3, ("a", "b"), "k=v"), (4, ("c", "d"), "true")]),
        ("--a.b -- x", [(2, ("a", "b"), "true")]),
        ("--a.b k=v", [(3, ("a", "b"), "k=v")]),
        ("--file data.v2.txt a.b=1", [(4, ("a", "b"), "1")]),
    ],
)
def test_an_option_with_a_dot_in_its_name_is_an_override(words, expected):
    found = read(["python", "train.py", *words.split()]).overrides
    assert [(override.index, override.path, override.text) for override in found] == expected


def test_the_word_of_an_override_is_the_one_that_holds_its_value():
    found = read(["python", "train.py", "x", "--a.b", "/data", "--c.d", "--e.f=1"]).overrides
    assert [(one.word, one.alone) for one in found] == [("/data", True), ("--c.d", True), ("--e.f=1", False)]


def test_art_in_one_is_filled_in_and_what_depends_on_the_key_stays_an_interpolation(nemotron_exec, tmp_path):
    (tmp_path / "blend").mkdir()
    (tmp_path / "show.py").write_text("import sys\nprint(sys.argv[1:4])\nprint(open(sys.argv[-1]).read())\n")
    (tmp_path / "cfg.yaml").write_text(
        "run: {data: 'blend:latest'}\ndataset: {path: /old}\ntext: ${art:data,path}/${dataset.path}\n"
    )
    env = {"NEMOTRON_EXEC_STORE": str(tmp_path / "store"), "NEMOTRON_EXEC_BACKEND": "manifest"}
    store = tmp_path / "store" / "blend" / "v1"
    store.mkdir(parents=True)
    (store / "manifest.json").write_text(
        f'{{"name": "blend", "version": 1, "type": "dataset", "path": "{tmp_path}/blend", "metadata": {{}}}}'
    )
    (store / "metadata.json").write_text(f'{{"path": "{tmp_path}/blend"}}')
    done = nemotron_exec(
        "python",
        "show.py",
        "--dataset.path",
        "${art:data,path}/part",
        "--dataset.more=${art:data,path}",
        "--config",
        "cfg.yaml",
        env=env,
    )
    first, _, rest = done.stdout.partition("\n")
    assert first == f"['--dataset.path', '{tmp_path}/blend/part', '--dataset.more={tmp_path}/blend']", done.stderr
    assert f"text: {tmp_path}/blend/${{dataset.path}}" in rest
