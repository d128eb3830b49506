"""The patch's change of a runtime_env, with Ray's own functions. tests/slurm tests a cluster."""

from __future__ import annotations

import json
import os
import sys

import pytest

from nemotron_exec.environment import injector_directory

pytestmark = pytest.mark.ci

INJECTOR = injector_directory()
# A driver of Ray's main branch, and one of Ray 2.43, whose `init` has the hook inlined (ray/_private/worker.py).
CURRENT = """
import json, os, sys
import ray._private.worker as worker
runtime_env, skip = json.loads(sys.argv[1])
print(json.dumps(worker._maybe_modify_runtime_env(runtime_env, skip)))
"""
OLD = """
import importlib, json, os, sys, types
ray, private, worker = (types.ModuleType(name) for name in ("ray", "ray._private", "ray._private.worker"))
def init(address=None, *, runtime_env=None, _skip_env_hook=False, **kwargs):
    if "RAY_RUNTIME_ENV_HOOK" in os.environ and not _skip_env_hook:
        module, _, function = os.environ["RAY_RUNTIME_ENV_HOOK"].rpartition(".")
        runtime_env = getattr(importlib.import_module(module), function)(runtime_env)
    return runtime_env
worker.init = init
from _nemotron_exec.patches import ray as patch
assert patch.apply(worker).state == "installed"
before = os.environ.get("RAY_RUNTIME_ENV_HOOK")
runtime_env, skip = json.loads(sys.argv[1])
changed = worker.init(runtime_env=runtime_env, _skip_env_hook=skip)
assert os.environ.get("RAY_RUNTIME_ENV_HOOK") == before
print(json.dumps(changed))
"""


@pytest.fixture(params=["current", "old"])
def changed(request, nemotron_exec, tmp_path):
    """The changed runtime_env of a job, in a driver under the launcher."""
    code = CURRENT if request.param == "current" else OLD

    def changed(runtime_env, *, skip=False, **environ):
        asked = json.dumps([runtime_env, skip])
        store = {"NEMOTRON_EXEC_STORE": str(tmp_path / "store")}
        done = nemotron_exec(sys.executable, "-c", code, asked, env={**store, **environ})
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return changed


def test_the_workers_of_a_running_cluster_get_the_injector_and_its_variables(changed, tmp_path):
    variables = changed(None)["env_vars"]
    # Ray replaces the second part by the node's own value.
    assert variables["PYTHONPATH"] == f"{INJECTOR}:${{PYTHONPATH}}"
    assert variables["NEMOTRON_EXEC_ACTIVE"]
    assert variables["NEMOTRON_EXEC_STORE"] == str(tmp_path / "store")


def test_what_the_job_says_itself_stays(changed):
    given = {
        "working_dir": "/code",
        "env_vars": {"OWN": "1", "NEMOTRON_EXEC_STORE": "/mine", "PYTHONPATH": f"/lib{os.pathsep}/more"},
    }
    found = changed(given)
    assert found["working_dir"] == "/code"
    assert found["env_vars"]["OWN"] == "1"
    assert found["env_vars"]["NEMOTRON_EXEC_STORE"] == "/mine"
    assert found["env_vars"]["PYTHONPATH"] == os.pathsep.join([INJECTOR, "/lib", "/more"])


def test_no_secret_is_handed_to_the_cluster(changed):
    assert not {name for name in changed(None, WANDB_API_KEY="k" * 40)["env_vars"] if name.startswith("WANDB_API")}


def test_the_users_own_hook_comes_first(changed, tmp_path):
    (tmp_path / "their_hook.py").write_text(
        "def add(env):\n    return {**(env or {}), 'env_vars': {'FROM_HOOK': '1', 'PYTHONPATH': '/hook'}}\n"
    )
    found = changed(None, RAY_RUNTIME_ENV_HOOK="their_hook.add", PYTHONPATH=str(tmp_path))
    assert found["env_vars"]["FROM_HOOK"] == "1"
    assert found["env_vars"]["PYTHONPATH"] == f"{INJECTOR}:/hook"


def test_a_driver_of_rays_own_is_left_alone(changed):
    assert changed(None, skip=True) is None


def test_it_can_be_switched_off(nemotron_exec):
    environ = {"NEMOTRON_EXEC_DISABLED_PATCHES": "ray"}
    done = nemotron_exec(sys.executable, "-c", CURRENT, "[null, false]", env=environ)
    assert done.stdout.splitlines()[-1] == "null", done.stderr


TASKS = """
import json, sys
from ray._private.utils import parse_runtime_env_for_task_or_actor as parse
print(json.dumps([parse(given) for given in json.loads(sys.argv[1])]))
"""


def test_a_worker_with_a_pythonpath_of_its_own_keeps_the_injector_in_front(nemotron_exec):
    given = [
        {"env_vars": {"PYTHONPATH": "/lib"}, "py_executable": "/venv/bin/python"},
        {"env_vars": {"PYTHONPATH": f"/lib:{INJECTOR}"}},
        {"env_vars": {"PYTHONPATH": ""}},
        {"env_vars": {"OWN": "1"}},
        None,
    ]
    done = nemotron_exec(sys.executable, "-c", TASKS, json.dumps(given))
    assert done.returncode == 0, done.stderr
    own, contained, empty, other, nothing = json.loads(done.stdout)
    assert own["env_vars"]["PYTHONPATH"] == f"{INJECTOR}:/lib"
    assert own["py_executable"] == "/venv/bin/python"
    assert contained["env_vars"]["PYTHONPATH"] == f"/lib:{INJECTOR}"
    assert empty["env_vars"]["PYTHONPATH"] == INJECTOR
    assert other["env_vars"] == {"OWN": "1"}
    assert nothing is None


CLIENT = """
import json, sys
import ray.util.client
from ray.job_config import JobConfig
job = JobConfig(runtime_env={"env_vars": {"OWN": "1"}})
try:
    ray.util.client._ClientContext().connect("127.0.0.1:1", job, connection_retries=0)
except (ConnectionError, ImportError):  # nobody is there; or no grpcio
    pass
print(json.dumps(job.runtime_env["env_vars"]))
"""


def test_ray_client_hands_them_on_too(nemotron_exec):
    done = nemotron_exec(sys.executable, "-c", CLIENT)
    assert done.returncode == 0, done.stderr
    variables = json.loads(done.stdout.splitlines()[-1])
    assert variables["OWN"] == "1"
    assert variables["PYTHONPATH"].startswith(INJECTOR)


WORKER = """
import os, sys
import ray._private.utils
print(os.environ["PYTHONPATH"], os.getcwd() in sys.path)
"""


def test_a_worker_on_a_node_without_a_pythonpath_gets_no_empty_entry(nemotron_exec, tmp_path):
    words = ["env", f"PYTHONPATH={INJECTOR}:", sys.executable, tmp_path / "look" / "worker.py"]
    (tmp_path / "look").mkdir()
    (tmp_path / "look" / "worker.py").write_text(WORKER)
    done = nemotron_exec(*words)
    assert done.stdout.split() == [INJECTOR, "False"], done.stderr
