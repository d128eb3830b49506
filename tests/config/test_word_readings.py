"""What the words of a command may mean for the config: keys, keys of `run`, and the files that they name."""

from __future__ import annotations

import pytest

from nemotron_exec.command.override import parse_overrides
from nemotron_exec.config import further_files
from nemotron_exec.config.other_forms import _keys, _paths, other_forms, refuse_stranded
from nemotron_exec.config.run_words import Misplaced, RunWords
from nemotron_exec.config.touched import normal, parts_of, touched_paths, words_of_files
from nemotron_exec.document.parse import parse_text
from nemotron_exec.errors import LaunchError

#  word, the word after it: keys with their values, whether written as an option, whether hardly anything else
KEYS = {
    ("a=1", None): [("a", "1", False, True)],
    ("a:=1", None): [("a", "1", False, True)],
    ("a=>1", None): [("a", "1", False, True)],
    ("a+=1", None): [("a", "1", False, True)],
    ("a:1", None): [("a", "1", False, False)],
    ("--a=1", None): [("a", "1", True, True)],
    ("--a:1", None): [("a", "1", True, False)],
    ("-ab=1", None): [("ab", "1", True, True), ("b", "1", True, True)],
    ("-a=1", None): [("a", "1", True, True)],
    ("++a=1", None): [("a", "1", False, True)],
    ("~a", None): [],
    ("~a", "x"): [("a", None, False, True)],
    ("--a", None): [("a", None, True, True)],
    ("--a", "x"): [("a", None, True, True)],
    ("a", None): [],
    ("a", "x"): [("a", None, False, True)],
    ("a.b[0]/c-d", "x"): [("a.b[0]/c-d", None, False, True)],
    ("a=b=c", None): [("a", "b=c", False, True), ("b", "c", False, True)],
    ("--o=a=1", None): [("o", "a=1", True, True), ("a", "1", False, True)],
    ("[a=1]", None): [("a", "1", False, True)],
    ("[ab=1]", None): [("ab", "1", False, True)],
    ("{a: 1}", None): [("a", "", False, False)],
    ("{a}", None): [("a", None, True, True)],
    ("a=1,b=2", None): [("a", "1,b=2", False, True), ("a", "1", False, True), ("b", "2", False, True)],
    ("a=1;b=2", None): [("a", "1;b=2", False, True), ("a", "1", False, True), ("b", "2", False, True)],
    ("1a=2", None): [],
    ("./a=2", None): [],
    ("a b", None): [],
    ("", None): [],
}


@pytest.mark.parametrize(("word", "following"), KEYS)
def test_the_keys_that_a_word_may_say(word, following):
    assert list(_keys(word, following)) == KEYS[word, following]


#  key, whether it is written as an option: the paths that it may mean
PATHS = {
    ("a.b", False): [("a", "b")],
    ("x.a", False): [("x", "a"), ("a",)],
    ("x.a.b", False): [("x", "a", "b"), ("a", "b")],
    ("a/b", False): [("a", "b")],
    ("seq-length", True): [("seq-length",), ("seq_length",)],
    ("se", True): [("se",), ("seq_length",)],
    ("se", False): [("se",)],
    ("s", True): [("s",)],
    ("seq_length", True): [("seq_length",)],
    ("..", False): [],
}


@pytest.mark.parametrize(("key", "dashed"), PATHS)
def test_the_paths_that_a_key_may_mean(key, dashed):
    assert list(_paths(key, [{"a": {"b": 1}, "seq_length": 1, "other": 2}], dashed=dashed)) == PATHS[key, dashed]


CONFIG = """\
run: {data: 'blend:v1', model: {hf: org/m}, note: text, 'id-2': 'x:v1', env: {NAME: v, deep: {k: 1}}}
root: /x
model: {seq_length: 8, layers: [1, {n: 2}], name: m}
data_dir: /d
batch_size: 4
lr: 1
train: {}
"""


def tree():
    return parse_text(CONFIG, "c.yaml").tree()


#  words: the paths that they may change
TOUCHED = {
    "root": {("root",)},
    "root=1": {("root",)},
    "--root 1": {("root",)},
    "x.root=1": {("root",)},
    "root.x=1": set(),
    "model": set(),
    "model=x": {("model",)},
    "model {x}": set(),
    "--model": {
        ("model",),
        ("model", "seq_length"),
        ("model", "layers"),
        ("model", "layers", 0),
        ("model", "layers", 1),
        ("model", "layers", 1, "n"),
        ("model", "name"),
    },
    "model.seq_length=1": {("model", "seq_length")},
    "model.layers[0]=1": {("model", "layers", "0")},
    "model.layers[1].n=1": {("model", "layers", "1", "n")},
    "model.layers[2]=1": set(),
    "seq_length=1": {("model", "seq_length")},
    "name=1": {("model", "name")},
    "--n 1": {("model", "layers", 1, "n")},
    "-n 1": {("model", "layers", 1, "n")},
    "-bs 1": {("batch_size",)},
    "-b 1": {("batch_size",)},
    "-d 1": {("data_dir",)},
    "-dd 1": {("data_dir",)},
    "-x 1": set(),
    "-lr 1": {("lr",), ("root",)},
    "--batch 1": {("batch_size",)},
    "--bat=1": {("batch_size",)},
    "--b 1": {("batch_size",)},
    "batch=1": set(),
    "data=1": set(),
    "--data 1": {("data_dir",)},
    "--no-root": {("root",)},
    "--noroot": {("root",)},
    "--cfg-root 1": {("root",)},
    "--set-batch-size 1": {("batch_size",)},
    "--model.name 1": {("model", "name")},
    "--model-name 1": {("model", "name")},
    "--train.x 1": set(),
    "run.data=1": {("run", "data")},
    "--run 1": set(),
    "'root /y lr 2'": {("root",), ("lr",)},
    "'lr of a root'": {("lr",)},
    "{root: 1}": {("root",)},
    "[root]": {("root",)},
    "(root)": {("root",)},
    "+root": {("root",)},
    "/root": {("root",)},
    ".root": {("root",)},
    "/data/root": set(),
    "../root": set(),
    "--unset=root": {("root",)},
    "x=root": set(),
    "root->1": {("root",)},
    "root:1": {("root",)},
    "@root": {("root",)},
    "ROOT=1": {("root",)},
    "SeqLength=1": {("model", "seq_length")},
    "x": set(),
}


@pytest.mark.parametrize("words", TOUCHED)
def test_the_paths_that_words_may_change(words):
    import shlex

    found = shlex.split(words)
    assert touched_paths(["python", "t.py", *found], 2, [tree()], ()) == TOUCHED[words]
    # Words before the first, and those of which it is known what they say, change nothing.
    assert touched_paths([*found, "t.py"], len(found), [tree()], ()) == set()
    assert touched_paths(["python", "t.py", *found], 2, [tree()], range(2, 2 + len(found))) == set()


def test_an_option_before_the_name_of_a_config_is_about_the_config():
    words = ["t.py", "--root", "cfg.yaml", "root"]
    assert touched_paths(words, 1, [tree()], [2, 3]) == set()
    assert touched_paths(words, 1, [tree()], [3]) == {("root",)}
    assert touched_paths(["t.py", "root", "cfg.yaml"], 1, [tree()], [2]) == {("root",)}


@pytest.mark.parametrize(
    ("name", "parts"), [("a.b[0]", ["a", "b", "0"]), ("a/b", ["a", "b"]), ("a__b", ["a", "b"]), ("a_b", ["a_b"])]
)
def test_the_parts_of_a_name(name, parts):
    assert parts_of(name) == parts


def test_a_name_without_case_and_dashes():
    assert {normal(name) for name in ("seq_length", "--seq-length", "seqLength", "SEQ_LENGTH")} == {"seqlength"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("@args.txt", [(1, ["--lr", "1", "x"])]),
        ("--flagfile=args.txt", [(1, ["--lr", "1", "x"])]),
        ("--args-file args.txt", [(2, ["--lr", "1", "x"])]),
        ("-opts_files args.txt y", [(2, ["--lr", "1", "x"])]),
        ("--file args.txt", []),
        ("--log-file=args.txt", []),
        ("args.txt", []),
        ("@gone.txt", [(1, [])]),
        ("@", []),
        ("@cfg.yaml", []),
        ("--flagfile cfg.yaml", []),
        ("--flagfile=", []),
        ("x --flagfile args.txt --flagfile=args.txt", [(3, ["--lr", "1", "x"]), (4, ["--lr", "1", "x"])]),
    ],
)
def test_the_words_of_files(tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    for name in ("args.txt", "cfg.yaml"):
        (tmp_path / name).write_text("# root=1\n--lr 1\n\n  # x\nx\n")
    assert words_of_files(["t.py", *words.split()], 1) == expected


#  words, index: what the word means
MEANT = {
    ("run.data=b:v1",): Misplaced("run.data", "b:v1", True),
    ("run.data=b",): Misplaced("run.data", "b", False),
    ("--run.data", "b:v1"): Misplaced("run.data", "b:v1", True),
    ("--run.data",): Misplaced("run.data", None, False),
    ("--run.data", "--x"): Misplaced("run.data", None, False),
    ("run.data", "b:v1"): Misplaced("run.data", "b:v1", True),
    ("run.data", "=", "b:v1"): Misplaced("run.data", "b:v1", True),
    ("run.data", "to", "b:v1"): Misplaced("run.data", "b:v1", True),
    ("run.data", "="): Misplaced("run.data", "=", False),
    ("run.data:", "b:v1"): Misplaced("run.data", "b:v1", True),
    ("run.data:b:v1",): Misplaced("run.data", "b:v1", True),
    ("run.data:b",): None,
    ("run.data:", "b"): None,
    ("run.data=", "b:v1"): Misplaced("run.data", "", False),
    ("run.data:=b:v1",): Misplaced("run.data", "b:v1", True),
    ("run.data b:v1",): Misplaced("run.data", "b:v1", True),
    ("run.data b",): None,
    ("run.data b:v1 x",): None,
    ("x.run.data=b:v1",): Misplaced("run.data", "b:v1", True),
    ("root.run.data=b:v1",): None,
    ("hydra.run.data=b:v1",): None,
    ("run.note=b:v1",): Misplaced("run.note", "b:v1", False),
    ("run.model=b:v1",): Misplaced("run.model", "b:v1", True),
    ("run.env.name=b:v1",): Misplaced("run.env.NAME", "b:v1", False),
    ("run.env.deep.k=1",): Misplaced("run.env.deep.k", "1", False),
    ("run.gone=b:v1",): None,
    ("run.id_2=b:v1",): Misplaced("run.id-2", "b:v1", True),
    ("run-data=b:v1",): Misplaced("run.data", "b:v1", True),
    ("--run-data", "b"): Misplaced("run.data", "b", False),
    ("run_data=b",): Misplaced("run.data", "b", False),
    ("run_note=b:v1",): None,
    ("run_data", "b:v1"): None,
    ("data=b:v1",): Misplaced("run.data", "b:v1", False),
    ("--data", "b:v1"): Misplaced("run.data", "b:v1", False),
    ("data=b",): None,
    ("data:b:v1",): None,
    ("model=b:v1",): None,  # a key of the config as well
    ("+run.data=b:v1",): None,
    ("x",): None,
    ("--out", "run.data", "b:v1"): None,
}


@pytest.mark.parametrize("words", MEANT)
def test_what_a_word_means_for_run(words):
    assert RunWords([tree()]).find(words, 0) == MEANT[words]


def test_the_word_before_counts_as_well():
    run = RunWords([tree()])
    assert run.find(["--run", "data=b:v1"], 1) == Misplaced("run.data", "b:v1", True)
    assert run.find(["run", "data=b:v1"], 1) == Misplaced("run.data", "b:v1", False)
    assert run.find(["--x", "data=b:v1"], 1) == Misplaced("run.data", "b:v1", False)
    assert run.find(["--out", "run.data", "x"], 1) is None
    assert run.find(["--out", "run.data", "b:v1"], 1) == Misplaced("run.data", "b:v1", True)
    assert RunWords([{"x": 1}]).find(["run.data=b:v1"], 0) is None


@pytest.mark.parametrize(
    ("key", "value", "version", "artifact", "new"),
    [
        ("data", "blend:v1", False, False, False),
        ("data", "blend:v2", True, False, False),
        ("DATA", "other:v1", True, True, False),
        ("data", 5, False, False, False),
        ("note", "b:v1", False, False, False),
        ("gone", "b:v1", False, False, True),
        ("gone", "b", False, False, False),
        ("gone", 5, False, False, False),
        ("model", "b:v1", True, True, False),
    ],
)
def test_another_version_another_artifact_and_a_new_one(key, value, version, artifact, new):
    run = RunWords([tree()])
    assert run.is_other_version(key, value) is version
    assert run.is_other_artifact(key, value) is artifact
    assert run.may_be_artifact(key, value) is new


def test_a_repository_without_a_revision_is_another_one_if_its_name_is():
    run = RunWords([{"run": parse_text("m: hf://a/b\nn: h:5000/x\n", "c.yaml").tree()}])
    assert run.is_other_artifact("m", "hf://c/d")
    assert not run.is_other_artifact("m", "hf://a/b@main")


def test_a_key_of_the_config_with_that_name_is_what_a_word_means():
    run = RunWords([{**tree(), "run_data": 1}])
    assert run.find(["x.run_data=b:v1"], 0) is None
    assert RunWords([tree()]).find(["x.run_data=b:v1"], 0) is not None
    assert RunWords([{**tree(), "x": 1}]).find(["x.run_data=b:v1"], 0) is not None


#  words: the keys of overrides in other forms
FORMS = {
    "root=/o": [(("root",), "/o")],
    "--root /o": [(("root",), None)],
    "root /o": [(("root",), None)],
    "root": [],
    "model x": [],
    "--model x": [(("model",), None)],
    "--model.new=1": [(("model", "new"), "1")],
    "model.new x": [],
    "--model.layers[0]=1": [(("model", "layers", "0"), "1")],
    "--model.layers.1.n=1": [(("model", "layers", "1", "n"), "1")],
    "--model.layers.2=1": [],
    "--model.name.x=1": [],
    "--roo=1": [(("root",), "1")],
    "--cfg.root=1": [(("root",), "1")],
    "--gone=1": [],
    "--gone.x=1": [],
    "cfg.root=1": [(("root",), "1")],
    "--x=1 --lr 2 --root=3": [(("lr",), None), (("root",), "3")],
}


@pytest.mark.parametrize("words", FORMS)
def test_overrides_in_other_forms(words):
    found = other_forms(["t.py", *words.split()], 1, [tree()], ())
    assert list(dict.fromkeys((one.path, one.text) for one in found)) == FORMS[words]
    assert other_forms(["t.py", *words.split()], 1, [["no mapping"]], ()) == ()


def test_of_a_config_below_a_name_of_the_script_the_rest_counts():
    words = [
        "t.py",
        "cfg.root=/o",
        "hydra.root=/o",
        "+cfg.root=/o",
        "model.root=/o",
        "cfg.model.new=1",
        "cfg.gone=1",
        "cfg.run=1",
        "cfg.model.run=1",
    ]
    known = parse_overrides(words[1:], 1)
    found = other_forms(words, 1, [tree()], known)
    assert [(one.index, one.path, one.text) for one in found] == [(1, ("root",), "/o"), (5, ("model", "new"), "1"),
        (7, ("run",), "1"), (8, ("model", "run"), "1")]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("--x run.data=b:v1 --y", "--x run.data=b:v1"),
        ("--x run.data=b:v1", "--x run.data=b:v1"),
        ("y --x run.data=b:v1", "--x run.data=b:v1"),
        ("--x run.data=b:v1 z", None),
        ("x run.data=b:v1", None),
        ("-x run.data=b:v1", None),
        ("-- run.data=b:v1", None),
        ("--x y=1", None),
        ("run.data=b:v1", None),
    ],
)
def test_an_override_of_run_is_not_all_that_an_option_has(words, refused):
    found = words.split()
    known = parse_overrides(found)
    if refused is None:
        refuse_stranded(found, known)
        return
    with pytest.raises(LaunchError) as caught:
        refuse_stranded(found, known)
    assert caught.value.wanted == f"to apply {refused}"
    assert caught.value.remedy == "Write run.data=b:v1"


#  words up to the program, its text: whether it may merge a further file
MERGES = [
    (["python", "t.py"], "import yaml", False),
    (["python", "t.py"], "import omegaconf", True),
    (["python", "t.py"], "HYDRA", True),
    (["python", "t.py"], None, True),
    (["python", "-c", "import yaml"], None, False),
    (["python", "-c", "OmegaConf.load()"], None, True),
    (["python", "-Bc", "x.update(y)"], None, True),
    (["-c", "import yaml"], None, False),
    (["abc", "import yaml"], None, True),
    (["-x", "import yaml"], None, True),
    (["prog"], None, True),
    (["x", "-c", "y", "import yaml"], None, True),
    (["-c", "x", "y", "import yaml"], None, True),
    (["x", "y", "-c", "import yaml"], None, False),
    ([], None, True),
]


@pytest.mark.parametrize(("words", "text", "merged"), MERGES)
def test_which_programs_may_merge_a_further_file(tmp_path, words, text, merged):
    if text is not None:
        (tmp_path / "t.py").write_text(text)
    (tmp_path / "o.yaml").write_text("run: {a: 1}\nroot: 1\n")
    (file,) = further_files.find([*words, "o.yaml"], len(words), [], str(tmp_path))
    assert (file.path, file.merged) == (str(tmp_path / "o.yaml"), merged)


def test_which_further_files_count(tmp_path):
    texts = {"a.yaml": "x: 1\n", "b.yml": "- x=1\n", "c.json": '{"x": 1}', "d.toml": "x = 1\n", "e.yaml": "text\n",
             "f.json": "{", "g.toml": "[", "h.yaml": "[", "i.json": "5", "j.txt": "x: 1\n", "k.json": "[" * 100_000,
             "m.toml": "é = 1"}  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    (tmp_path / "l.json").symlink_to("c.json")
    words = ["prog", "cfg.yaml,a.yaml", *texts, "a.yaml", "--x=d.toml", "@l.json", "gone.json", "cfg.yaml"]
    (tmp_path / "cfg.yaml").write_text("x: 1\n")
    found = further_files.find(words, 1, [str(tmp_path / "cfg.yaml")], str(tmp_path))
    assert [file.path[len(str(tmp_path)) + 1 :] for file in found] == ["a.yaml", "b.yml", "c.json", "d.toml"]
    assert further_files.find(words, len(words), [], str(tmp_path)) == []


@pytest.mark.parametrize(("size", "read"), [(2**17, 1), (2**17 + 1, 0)])
def test_how_large_a_further_file_may_be(tmp_path, size, read):
    (tmp_path / "a.yaml").write_text("x: 1\n".ljust(size, "#"))
    (tmp_path / "a.yaml").write_text("x: 1\n" + "#" * (size - 5))
    assert len(further_files.find(["prog", "a.yaml"], 1, [], str(tmp_path))) == read


def test_a_program_that_merges_nothing_is_not_asked_for_more_than_a_run_section(tmp_path):
    (tmp_path / "t.py").write_text("#" * (2**20 - 1) + "\n")
    for text, read in (("x: 1\n", 0), ("run: {a: 1}\n", 1)):
        (tmp_path / "a.yaml").write_text(text)
        assert len(further_files.find(["t.py", "a.yaml"], 1, [], str(tmp_path))) == read


#  content of a file: the keys of the config that it sets
SETS = {
    "root: 1": {("root",)},
    "cfg: {root: 1}": {("root",)},
    "cfg: {model: {name: 1}}": {("model", "name")},
    "cfg: {model: {new: 1}}": set(),
    "model: {new: 1}": {("model", "new")},
    "model.name: 1": {("model", "name")},
    "model: {layers: [1, {n: 2}]}": {("model", "layers"), ("model", "layers", 0), ("model", "layers", 1, "n")},
    "model: {}": {("model",)},
    "x: [root=1, '++model.name = 2', '~lr=', no]": {("root",), ("model", "name"), ("lr",)},
    "run: {root: 1}": {("root",)},
    "gone: 1": set(),
}


@pytest.mark.parametrize("text", SETS)
def test_the_keys_that_a_file_sets(text):
    file = further_files.Further("f", parse_text(text, "f").tree(), merged=True)
    assert set(further_files.paths_of(file, [tree()])) == SETS[text]
    assert all(path[0] != "run" for path in further_files.paths_of(file, [tree()]))


#  content of a file: what stops the start, else what is warned about; both where `-c` names the config
LOOKED = {
    "run: {data: 'blend:v1'}": (None, [], []),
    "run: {data: 'blend:v2'}": ("run.data", None, []),
    "run: {data: 'other:v2'}": ("run.data", None, ["run.data"]),
    "run: {new: 'b:v1'}": (None, ["run.new"], ["run.new"]),
    "run: {new: b}": (None, [], []),
    "run: {wandb: {project: x}}": (None, ["run.wandb"], ["run.wandb"]),
    "run: {note: b}": (None, [], []),
    "run: [1]": (None, [], []),
    "run: x": (None, [], []),
    "x: 1": (None, [], []),
    "[run]": (None, [], []),
    "run: {new: 'b:v1', checkpoints: last}": (None, ["run.new", "run.checkpoints"], ["run.new", "run.checkpoints"]),
}


@pytest.mark.parametrize("text", LOOKED)
def test_the_run_section_of_a_further_file(text):
    refused, warned, explicit = LOOKED[text]
    file = further_files.Further("f", parse_text(text, "f").tree(), merged=True)
    said = []
    run = RunWords([tree()])
    if refused is None:
        further_files.look_for_run(file, run, said.append)
        assert [one.split(" of ")[0] for one in said] == warned
        further_files.look_for_run(file, run, None)
    else:
        with pytest.raises(LaunchError) as caught:
            further_files.look_for_run(file, run, said.append)
        assert caught.value.wanted == f"to apply {refused} of f"
    said.clear()
    further_files.look_for_run(file, run, said.append, explicit=True)
    assert [one.split(" of ")[0] for one in said] == explicit
