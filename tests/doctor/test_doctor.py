"""`--doctor` reports everything that would keep a job from working here, and says yes only if it would work."""

from __future__ import annotations

import ast
import glob
import http.server
import io
import json
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from nemotron_exec.doctor import Finding, Level, directories
from nemotron_exec.doctor.command_line import _obstacles
from nemotron_exec.doctor.finding import _GROUP_OF
from nemotron_exec.doctor.report import print_report
from nemotron_exec.environment import injector_directory
from nemotron_exec.patches import PATCHES

# Read here, because a test has a home without pyenv.
PYENV = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")


@pytest.fixture
def doctor(nemotron_exec, tmp_path, bare_path):
    """Runs the doctor on a PATH with this Python alone; gives the findings and the exit code."""

    def run(*words, options=(), **env):
        env = {"PATH": str(bare_path), "NEMO_ARTIFACT_ROOT": str(tmp_path / "store"), **env}
        done = nemotron_exec("--log-format", "json", *options, "--doctor", *words, env=env)
        assert done.returncode in (0, 1), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], done.returncode

    run.folder = bare_path
    return run


def faults(found, subject=None):
    return [one for one in found if one["level"] == "fault" and subject in (None, one["subject"])]


def about(found, subject):
    return [one["found"] for one in found if one["subject"] == subject]


def test_a_healthy_machine_is_said_to_be_one(doctor):
    found, code = doctor("python", "train.py")
    assert (faults(found), code) == ([], 0)
    assert any("the injector runs" in text for text in about(found, "python"))
    assert {one["subject"] for one in found} >= {"command", "place", "job", "python", "/nemo_run", "store", "state",
                                                 "clock", "wandb"}  # fmt: skip


def test_the_report_for_people_ends_with_the_verdict(nemotron_exec, tmp_path, bare_path):
    environ = {"NEMO_ARTIFACT_ROOT": str(tmp_path), "PATH": str(bare_path)}
    done = nemotron_exec("--doctor", "no-such-command", env=environ)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "Environment"
    assert lines[1].startswith("  fault    command ")
    assert lines[-1] == "1 fault: the job would not work"
    assert "Traceback" not in done.stderr


def test_the_report_has_groups_those_with_faults_come_first_and_details_only_under_v():
    found = [
        Finding(Level.OK, "command", "python starts"),
        Finding(Level.ABSENT, "patch", "not installed: NeMo-RL"),
        Finding(Level.WARNING, "patch", "lineage stood down", "Look for a newer one"),
        Finding(Level.OK, "store", "/s is writable"),
        Finding(Level.FAULT, "cache", "/c: permission denied", "Name another"),
        Finding(Level.OK, "clock", "agrees", detail=True),
    ]
    out = io.StringIO()
    print_report(found, out, verbose=False)
    assert out.getvalue().splitlines() == [
        "Store",
        "  fault    cache      /c: permission denied",
        "                      Name another.",
        "  ok       store      /s is writable",
        "",
        "Injection",
        "  warning  patch      lineage stood down",
        "                      Look for a newer one.",
        "  absent   patch      not installed: NeMo-RL",
        "",
        "Environment",
        "  ok       command    python starts",
        "",
        "1 more check is well; -v shows all",
        "1 fault: the job would not work",
    ]
    out = io.StringIO()
    print_report(found, out, verbose=True)
    assert "  ok       clock      agrees" in out.getvalue()
    assert "-v shows" not in out.getvalue()


def test_every_subject_that_a_check_names_has_a_group():
    source = "".join(path.read_text() for path in Path(directories.__file__).parent.glob("*.py"))
    subjects = set(re.findall(r"Finding\(\s*(?:Level\.\w+|level|[^,()]*else [^,()]*),\s*\"([^\"]+)\"", source))
    assert len(subjects) > 10
    assert subjects <= set(_GROUP_OF)


def test_without_a_command_the_place_is_checked_all_the_same(doctor):
    found, code = doctor()
    assert code == 0, faults(found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("python", "-I", "train.py"), "-I"),
        (("python", "-E", "train.py"), "-E"),
        (("python", "-uS", "train.py"), "-S"),
        (("python", "-IS", "-m", "train"), "-S"),
        (("env", "-i", "python", "train.py"), "clears PYTHONPATH"),
        (("env", "-u", "PYTHONPATH", "A=1", "python", "train.py"), "clears PYTHONPATH"),
        (("sh", "-c", "x", "opentelemetry-instrument"), "hides the injector"),
    ],
)
def test_what_keeps_the_injector_out_of_the_command_is_named(doctor, words, said):
    found, code = doctor(*words)
    assert code == 1
    assert any(said in one["found"] for one in faults(found, "command")), found
    assert all(one["remedy"] for one in faults(found))


@pytest.mark.parametrize(
    "words",
    [
        ("python", "train.py", "-I"),  # options of the script
        ("python", "-m", "train", "-E"),
        ("python", "-c", "-S"),
        ("python", "-P", "-u", "train.py"),
        ("python", "-X", "importtime", "-W", "ignore", "train.py"),
        ("env", "A=1", "python", "train.py", "-i"),
    ],
)
def test_other_words_are_left_alone(words):
    assert list(_obstacles(words)) == []


def test_the_flags_in_the_first_line_of_a_script_count(doctor):
    script = doctor.folder / "torchrun"
    script.write_text(f"#!{sys.executable} -I\n")
    script.chmod(0o755)
    found, code = doctor("torchrun", "train.py")
    assert code == 1
    assert "first line" in faults(found, "command")[0]["found"]


def test_safe_path_is_no_obstacle_and_is_said_to_be_none(doctor):
    found, code = doctor("python", "train.py", PYTHONSAFEPATH="1")
    assert code == 0
    assert any("PYTHONSAFEPATH" in text for text in about(found, "command"))
    assert any("the injector runs" in text for text in about(found, "python"))


def test_a_python_that_the_injector_does_not_reach_is_a_fault(doctor):
    wrapper = doctor.folder / "python"
    wrapper.unlink()
    wrapper.write_text(f'#!/bin/sh\nunset PYTHONPATH\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    found, code = doctor("python", "train.py")
    assert code == 1
    assert "does not run" in faults(found, "python")[0]["found"]


def test_every_python_on_path_is_asked(doctor, tmp_path):
    folders = glob.glob(os.path.join(PYENV, "versions", "3.8*", "bin"))
    found, code = doctor(PATH=":".join([str(doctor.folder), *folders, "/usr/bin", "/bin"]))
    assert code == 0, faults(found)
    versions = [text for text in about(found, "python") if "the injector runs" in text]
    assert len(versions) >= 1 + len(folders)


def test_another_sitecustomize_on_pythonpath_is_named(doctor, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("")
    found, code = doctor(PYTHONPATH=str(other))
    assert code == 0
    assert any(str(other) in text for text in about(found, "python"))


def test_the_switch_that_turns_everything_off_is_a_fault(doctor):
    found, code = doctor("python", "train.py", NEMOTRON_EXEC_DISABLE="1")
    assert code == 1
    assert "NEMOTRON_EXEC_DISABLE" in faults(found, "command")[0]["found"]


def test_a_store_that_cannot_be_written_is_a_fault(doctor):
    found, code = doctor(NEMO_ARTIFACT_ROOT="/dev/null/store")
    assert code == 1
    assert "/dev/null" in faults(found, "store")[0]["found"]


def test_a_store_in_memory_is_a_fault(doctor):
    found, code = doctor(NEMO_ARTIFACT_ROOT="/dev/shm/nemotron-exec-doctor")
    assert code == 1
    assert "tmpfs" in faults(found, "store")[0]["found"]
    assert not os.path.exists("/dev/shm/nemotron-exec-doctor")


def test_a_store_elsewhere_is_tried(doctor):
    assert doctor(NEMO_ARTIFACT_ROOT="memory://artifacts")[1] == 0
    found, code = doctor(NEMO_ARTIFACT_ROOT="no-such-protocol://artifacts")
    assert code == 1
    assert "no-such-protocol" in faults(found, "store")[0]["found"]


def test_several_nodes_without_a_shared_directory_are_a_fault(doctor, tmp_path):
    (tmp_path / "cfg.yaml").write_text("run: {data: a:latest}\n")
    srun = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "2",
            "SLURM_NNODES": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_TASKS_PER_NODE": "1(x2)"}  # fmt: skip
    found, code = doctor("python", "train.py", "cfg.yaml", options=("--timeout", "1"), **srun)
    assert code == 1
    assert faults(found, "state")
    assert faults(found, "store")  # the store is on a disk that the other node does not see


def test_several_nodes_without_a_common_identity_are_a_fault(doctor, tmp_path):
    torchrun = doctor.folder / "torchrun"
    torchrun.write_text("#!/bin/sh\n")
    torchrun.chmod(0o755)
    words = ("torchrun", "--nnodes=2", "--node-rank=1", "--master-addr=a", "train.py")
    assert faults(doctor(*words)[0], "job")
    assert not faults(doctor(*words, options=("--job-id", "7"))[0], "job")


def test_nothing_is_left_behind(doctor, tmp_path):
    state = tmp_path / "state"
    doctor("python", "train.py", options=("--state-dir", state))
    left = [name for _, _, names in os.walk(tmp_path) for name in names if "doctor" in name]
    assert left == []
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("skew", "several", "level"),
    [
        (0.5, True, Level.OK),
        (-1.0, True, Level.OK),
        (5.0, True, Level.WARNING),
        (-60.0, True, Level.FAULT),
        (60.0, False, Level.WARNING),
    ],
)
def test_a_clock_that_is_off_by_more_than_a_lease_is_a_fault_among_nodes(skew, several, level):
    assert directories._judge_skew(skew, several=several).level is level


def test_the_clock_of_this_machine_agrees_with_itself(tmp_path):
    assert abs(directories._clock_skew(str(tmp_path / "probe"))) < 2


def test_nemo_run_outside_its_container_is_reported(doctor, tmp_path):
    found, code = doctor(NEMO_RUN_DIR=str(tmp_path))
    assert code == 0
    assert str(tmp_path) in about(found, "/nemo_run")[0]


class _Server(http.server.BaseHTTPRequestHandler):
    """A W&B server that accepts one key."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        good = self.headers.get("Authorization", "") == "Basic YXBpOmdvb2Q="  # api:good
        body = json.dumps({"data": {"viewer": {"username": "ada"} if good else None}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    """The address of a loopback server that names the user of a key."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_wandb_is_asked_for_the_owner_of_the_key(doctor, server):
    wandb = {"WANDB_BASE_URL": server, "WANDB_PROJECT": "p"}
    found, code = doctor(WANDB_API_KEY="good", **wandb)
    assert code == 0, faults(found)
    assert "ada" in about(found, "wandb")[0]
    assert "good" not in json.dumps(found)
    found, code = doctor(WANDB_API_KEY="bad", **wandb)
    assert code == 1
    assert "does not accept the API key" in faults(found, "wandb")[0]["found"]


def test_wandb_out_of_reach_is_a_fault_only_where_references_are_looked_up_there(doctor):
    gone = {"WANDB_API_KEY": "k", "WANDB_BASE_URL": "http://127.0.0.1:9"}
    assert doctor(WANDB_PROJECT="p", **gone)[1] == 1
    found, code = doctor(**gone)
    assert code == 0
    assert [one["level"] for one in found if one["subject"] == "wandb"] == ["warning"]
    assert doctor(WANDB_PROJECT="p", WANDB_MODE="offline", **gone)[1] == 0


@pytest.mark.parametrize(
    ("config", "variable", "said"),
    [
        ("", None, "the job ends with one error (the default)"),
        (", required: false", None, "the run starts offline"),
        (", required: false", "1", "the job ends with one error (NEMOTRON_EXEC_WANDB_REQUIRED)"),
        ("", "off", "sends it (NEMOTRON_EXEC_WANDB_REQUIRED)"),
    ],
)
def test_what_a_job_does_whose_wandb_does_not_answer_is_said(doctor, tmp_path, config, variable, said):
    (tmp_path / "cfg.yaml").write_text(f"run: {{wandb: {{project: p{config}}}}}\n")
    environ = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:1", "NEMOTRON_EXEC_WANDB_TIMEOUT": "7"}
    if variable:
        environ["NEMOTRON_EXEC_WANDB_REQUIRED"] = variable
    words, options = ("python", "t.py", "cfg.yaml"), ("--backend", "manifest")
    found, _ = doctor(*words, options=options, **environ)
    (line,) = [text for text in about(found, "run") if "does not answer" in text]
    assert line.startswith("where W&B does not answer within 7 s, ")
    assert said in line
    found, _ = doctor(*words, options=options)  # without a key
    assert not any("does not answer" in text for text in about(found, "run"))


def test_wandb_without_a_key_where_it_is_asked_for_is_a_fault(doctor):
    found, code = doctor(options=("--backend", "wandb"))
    assert code == 1
    assert "no W&B API key" in faults(found, "wandb")[0]["found"]


def test_it_says_of_each_patch_what_becomes_of_it_and_names_a_module_that_cannot_be_imported(doctor, tmp_path):
    # Run the doctor once: it imports every framework, which takes seconds.
    recipes = tmp_path / "site/nemo_automodel/recipes"
    recipes.mkdir(parents=True)
    for package in (recipes.parent, recipes):
        (package / "__init__.py").write_text("")
    (recipes / "base_recipe.py").write_text("import torchdata_of_another_image\n")
    environ = {"PYTHONPATH": str(tmp_path / "site"), "NEMOTRON_EXEC_DISABLED_PATCHES": "resolvers"}
    found, code = doctor(sys.executable, "train.py", **environ)
    said = {line.split()[0]: line for line in about(found, "patch") if not line.startswith("not installed")}
    # wandb and OmegaConf are installed for the tests, NeMo-RL is not.
    assert said["lineage"] == "lineage installed"
    assert said["resolvers"] == "resolvers switched off"
    assert "nemo-rl" not in said
    (absent,) = [one for one in found if one["level"] == "absent"]
    assert "NeMo-RL" in absent["found"]
    assert "wandb" not in absent["found"]
    (warning,) = [one for one in found if one["subject"] == "patch" and "automodel" in one["found"]]
    assert warning["level"] == "warning"
    assert "nemo_automodel.recipes.base_recipe" in warning["found"]
    assert "torchdata_of_another_image" in warning["found"]
    assert code == 0


def test_the_table_of_patches_is_that_of_the_injector():
    source = ast.parse((Path(injector_directory()) / "payload/start.py").read_text())
    tables = [
        node.value
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_PATCHES"
    ]
    assert ast.literal_eval(tables[0]) == {module: name for name, modules in PATCHES.items() for module in modules}
