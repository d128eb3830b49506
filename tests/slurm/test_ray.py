"""Jobs under the launcher on a running Ray cluster of three nodes.

The nodes are virtual nodes of Slurm, each with a /tmp of its own. So no other node sees the launcher's files in TMPDIR
of the head.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from cluster import HERE, ROOT

from nemotron_exec.environment import injector_directory
from nemotron_exec.sitecustomize.payload.manifest import read

# conftest.py runs all these tests on one worker of pytest-xdist.
pytestmark = [pytest.mark.ci, pytest.mark.timeout(600)]

# Switches of the cluster: no token in the home directory, and no usage reports.
RAY = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
AUTO = {"init": {"address": "auto"}}


@pytest.fixture(scope="module")
def cluster(slurm, tmp_path_factory):
    """Ray on three nodes, started as by NeMo-RL's ray.sub, without a variable of the launcher in its environment."""
    directory = tmp_path_factory.mktemp("ray")
    start = f"srun --kill-on-bad-exit=1 {HERE / 'ray_node.sh'} {directory}"
    job = slurm.submit("--nodes=3", "--ntasks-per-node=1", "--wrap", start, env=RAY, cwd=directory)

    def up():
        assert job.show()["JobState"] in ("PENDING", "CONFIGURING", "RUNNING"), job.output()
        return len(list(directory.glob("up.*"))) == 3

    slurm.until(up, 300, "Ray is up", job.output)
    yield slurm
    job.cancel()


@pytest.fixture(autouse=True)
def _no_earlier_job(cluster):
    """Remove the state of other tests' jobs on the head, because all jobs have the same id."""
    cluster.on("node1", "sh", "-c", 'rm -rf "$TMPDIR"/nemotron-exec-*')


@pytest.fixture
def drive(cluster, work):
    """Run a driver on the head under the launcher; returns the observations of an actor on each node."""

    def drive(scenario, *options, environ=None, launcher=("nemotron-exec",)):
        done = cluster.on(
            *("node1", *launcher, *options, sys.executable, str(HERE / "ray_driver.py"), json.dumps(scenario)),
            str(work.config),
            env={**RAY, "NEMOTRON_EXEC_STORE": work.environ["NEMOTRON_EXEC_STORE"], **(environ or {})},
            check=False,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        (answer,) = (line for line in done.stdout.splitlines() if line.startswith("ANSWER "))
        return json.loads(answer.removeprefix("ANSWER "))

    return drive


def is_whole(seen, *, artifacts=("blend:v1",)):
    """Whether the actors on all three nodes have the injector and the job's inputs."""
    assert [one["host"] for one in seen] == ["node1", "node2", "node3"]
    assert [one["injected"] for one in seen] == [True] * 3
    assert [one["artifacts"] for one in seen] == [list(artifacts)] * 3
    return True


def test_without_the_launcher_no_worker_is_injected(drive):
    assert [one["injected"] for one in drive(AUTO, launcher=("env",))] == [False] * 3


def test_a_driver_that_joins_the_cluster_has_its_workers_injected_on_every_node(drive, work):
    seen = drive({**AUTO, "restart": True, "save": str(work.path / "save")})
    assert is_whole(seen)
    assert [one["path"] for one in seen] == [[injector_directory()]] * 3
    # The checkpoint of node3, whose /tmp is not the head's, has the job's inputs.
    version = read.read_version(work.environ["NEMOTRON_EXEC_STORE"], "save", "latest").manifest
    assert "blend" in json.dumps([version["inputs"], version["used_artifacts"]])


def test_what_the_driver_says_itself_stays_and_the_users_hook_is_called(drive, work):
    (work.path / "hooks").mkdir()
    (work.path / "hooks" / "their_hook.py").write_text(
        "def add(env):\n"
        "    env = dict(env or {})\n"
        "    env['env_vars'] = {**env.get('env_vars', {}), 'FROM_HOOK': '1'}\n"
        "    return env\n"
    )
    seen = drive(
        {
            "init": {
                "address": "auto",
                "runtime_env": {"env_vars": {"OWN": "1"}, "working_dir": str(work.path / "hooks")},
            }
        },
        environ={"RAY_RUNTIME_ENV_HOOK": "their_hook.add", "PYTHONPATH": str(work.path / "hooks")},
    )
    assert is_whole(seen)
    assert {one["variables"]["OWN"] + one["variables"]["FROM_HOOK"] for one in seen} == {"11"}


def test_an_environment_of_an_actors_own_keeps_the_injector(drive):
    own = {"env_vars": {"PYTHONPATH": "/lib/own"}, "py_executable": sys.executable}
    seen = drive({"init": {}, "job_config": {"env_vars": {"OWN": "2"}}, "actor": own}, environ={"RAY_ADDRESS": "auto"})
    assert is_whole(seen)
    assert [one["path"] for one in seen] == [[injector_directory(), "/lib/own"]] * 3
    assert {one["variables"]["OWN"] for one in seen} == {"2"}


def test_a_submitted_job_that_hands_on_its_whole_environment_starts(drive):
    """JobSupervisor of `ray job submit` and NeMo-RL's init_ray together pass this environment."""
    submitted = {"runtime_env": {"env_vars": {"OWN": "3"}}, "metadata": {"job_submission_id": "raysubmit_1"}}
    seen = drive(
        {"init": {"address": "auto", "runtime_env": {"env_vars": {"NEMO_RL": "1"}}}},
        *("--job-id", "grpo"),
        environ={"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(submitted)},
    )
    assert is_whole(seen)
    assert {one["variables"]["OWN"] for one in seen} == {"3"}


def test_a_driver_that_is_killed_and_submitted_again_keeps_its_versions(cluster, drive, work):
    """As in ray.sub, the --job-id is the same, and there is no variable of Slurm."""
    options = ("--job-id", "grpo", "--state-dir", str(work.path / "state"))
    words = [*options, sys.executable, str(HERE / "ray_driver.py"), json.dumps(AUTO), str(work.config)]
    first = subprocess.Popen(
        [*cluster.words_on("node1"), "nemotron-exec", *words],
        env=cluster.environ({"NEMOTRON_EXEC_STORE": work.environ["NEMOTRON_EXEC_STORE"]}),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    cluster.until(lambda: list(work.path.glob("state/*/jobs/grpo-*/*/answer.1.json")), 60, "the first has its answer")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    work.publish(2)
    assert is_whole(drive(AUTO, *options))


def the_example_of_kuberay(work):
    """The words after nemotron-exec of examples/ray/rayjob.yaml, with its /shared in the test's directory."""
    spec = yaml.safe_load((ROOT / "examples" / "ray" / "rayjob.yaml").read_text())["spec"]
    program = work.path / "code" / "examples" / "run_grpo.py"
    program.parent.mkdir(parents=True)
    program.write_text(
        "import os, runpy, sys\n"
        "sys.argv = ['ray_driver.py', os.environ['SCENARIO']]\n"
        f"runpy.run_path({str(HERE / 'ray_driver.py')!r}, run_name='__main__')\n"
    )
    work.config.rename(work.path / "code" / "cfg.yaml")
    (work.path / "store").rename(work.path / "artifacts")
    # The environment that JobSupervisor gives the entrypoint.
    submission = {"runtime_env": {}, "metadata": {"job_submission_id": "raysubmit_1"}}
    assert "runtimeEnvYAML" not in spec
    return shlex.split(spec["entrypoint"].replace("/shared", str(work.path))), {
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(submission),
        "RAY_ADDRESS": "10.213.0.1:6379",
    }


# The environment as NeMo-RL's init_ray handles it; and init_ray itself, if NEMO_RL_CHECKOUT names a checkout.
INIT_RAY = {"": "", **({name: os.path.abspath(name)} if (name := os.environ.get("NEMO_RL_CHECKOUT")) else {})}


@pytest.mark.parametrize("checkout", INIT_RAY.values(), ids=["as init_ray does", "init_ray itself"][: len(INIT_RAY)])
def test_the_example_of_kuberay_starts_nemo_rl(cluster, work, checkout):
    words, environ = the_example_of_kuberay(work)
    if checkout:
        # Copy the code to a directory that the nodes see.
        shutil.copytree(os.path.join(checkout, "nemo_rl"), work.path / "RL" / "nemo_rl")
        checkout = str(work.path / "RL")
    scenario = {"init_ray": checkout, "restart": True}
    environ = {**RAY, **environ, "SCENARIO": json.dumps(scenario)}
    done = cluster.on("node1", *words, env=environ, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    (answer,) = (line for line in done.stdout.splitlines() if line.startswith("ANSWER "))
    assert is_whole(json.loads(answer.removeprefix("ANSWER ")))
    assert "earlier start" not in done.stderr
