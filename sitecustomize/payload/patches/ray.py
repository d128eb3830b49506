"""Ray: workers of a cluster that runs already get the injector, too, on every node.

A cluster that the driver starts passes on the driver's environment. A cluster that runs already passes on `runtime_env`
and nothing else (`ray.init(address="auto")`, `ray job submit`, Ray Client). The patch wraps:

    ray._private.worker._maybe_modify_runtime_env            the job's runtime_env, after the user's own hook
                                                             (RAY_RUNTIME_ENV_HOOK) and that of `uv run`
    ray._private.worker.init                                 the same by that variable, without that function
    ray._private.utils.parse_runtime_env_for_task_or_actor   the runtime_env of a task or actor with its own PYTHONPATH
    ray.util.client._ClientContext.connect                   the job's, for Ray Client

Setting RAY_RUNTIME_ENV_HOOK alone is not enough: Ray ignores it under `uv run` and in Ray Client. A Python without the
injector (`-I`) cannot import the hook, so `ray.init` would fail there if the variable stayed set.

Known: Ray 2.43 (no `_maybe_modify_runtime_env` yet), 2.49, 2.55, 2.60. Can go when Ray hands the driver's environment
to the workers of a running cluster.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import os
import sys

from .. import job, notice
from ..status import INSTALLED, STOOD_DOWN, Status

NAME = "ray"

_INJECTOR = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
# These variables hold no key and no password: the cluster's dashboard shows a runtime_env to all its users.
_VARIABLES = ("NEMO_ARTIFACT_ROOT", "NEMO_RUN_DIR", "WANDB_PROJECT", "WANDB_ENTITY")
_HOOK = "RAY_RUNTIME_ENV_HOOK"
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class _Ray:
    """Problems found in Ray's modules, and the user's hooks while an older Ray's `init` runs."""

    def __init__(self):
        self.problems = {}
        self.users_hooks = []

    def inherit(self, parents):
        self.problems.update(parents.problems)


def apply(module):
    """Wrap the functions of `module`, one of the three, that handle runtime_env. Idempotent. Returns a `Status`."""
    name = module.__name__
    problems = job.part(_Ray).problems
    problems[name] = {"worker": _driver, "utils": _tasks, "client": _client}[name.rpartition(".")[2]](module)
    missing = [problem for problem in problems.values() if problem]
    if missing:
        return Status(NAME, STOOD_DOWN, "%s; workers of a running cluster may lack the injector" % "; ".join(missing))
    return Status(NAME, INSTALLED, "")


def hook(runtime_env):
    """Call the user's hook, then the patch. RAY_RUNTIME_ENV_HOOK names this function during an older Ray's `init`."""
    users = job.part(_Ray).users_hooks[-1]
    if users:
        name, _, function = users.rpartition(".")
        runtime_env = getattr(importlib.import_module(name), function)(runtime_env)
    return _guarded(_with_injector, runtime_env)


def _driver(module):
    if not hasattr(module, "_maybe_modify_runtime_env"):
        return _wrap(module, "init", ["address"], _init_with_hook)
    return _wrap(module, "_maybe_modify_runtime_env", ["runtime_env", "_skip_env_hook"], _modify) or _wrap(
        module, "init", ["address"], _init
    )


def _tasks(module):
    _drop_empty_entry()
    return _wrap(module, "parse_runtime_env_for_task_or_actor", ["runtime_env"], _parse)


def _client(module):
    return _wrap(module._ClientContext, "connect", ["self", "conn_str", "job_config"], _connect)


def _wrap(owner, name, parameters, wrapper):
    """Put `wrapper(original)` in the place of a function. Returns None, or why the function is not the expected one."""
    original = getattr(owner, name, None)
    if original is None or list(inspect.signature(original).parameters)[: len(parameters)] != parameters:
        return "%s has no %s(%s)" % (owner.__name__, name, ", ".join(parameters))
    if not hasattr(original, "_nemotron_exec"):
        wrapped = functools.wraps(original)(wrapper(original))
        wrapped._nemotron_exec = True
        setattr(owner, name, wrapped)
    return None


def _modify(original):
    def modify(runtime_env, _skip_env_hook):
        changed = original(runtime_env, _skip_env_hook)
        # Ray's own drivers, such as the dashboard, do not belong to the job.
        return changed if _skip_env_hook else _guarded(_with_injector, changed)

    return modify


def _init(original):
    return lambda *args, **kwargs: original(*args, **_with_job_config(kwargs))


def _init_with_hook(original):
    def init(*args, **kwargs):
        hooks = job.part(_Ray).users_hooks
        hooks.append(os.environ.get(_HOOK))
        os.environ[_HOOK] = __name__ + ".hook"
        try:
            return original(*args, **_with_job_config(kwargs))
        finally:
            users = hooks.pop()
            if users is None:
                del os.environ[_HOOK]
            else:
                os.environ[_HOOK] = users

    return init


def _with_job_config(kwargs):
    """Make the runtime_env of a `job_config` an argument of `ray.init`: a hook's result would replace it inside."""
    of_job = getattr(kwargs.get("job_config"), "runtime_env", None)
    if not of_job or kwargs.get("runtime_env") is not None or _SUBMITTED in os.environ:
        return kwargs
    return dict(kwargs, runtime_env=of_job)


def _parse(original):
    return lambda runtime_env: original(_guarded(_in_front, runtime_env))


def _connect(original):
    def connect(self, conn_str, job_config=None, *args, **kwargs):
        job_config = job_config or sys.modules["ray.job_config"].JobConfig()
        job_config.set_runtime_env(_guarded(_with_injector, job_config.runtime_env))
        options = kwargs.get("ray_init_kwargs")
        if options and options.get("runtime_env") is not None:
            options["runtime_env"] = _guarded(_with_injector, options["runtime_env"])
        return original(self, conn_str, job_config, *args, **kwargs)

    return connect


def _guarded(change, runtime_env):
    """The result of `change(runtime_env)`. If it fails: the runtime_env unchanged, and one warning."""
    try:
        return change(runtime_env)
    except Exception as error:
        if notice.strict():
            raise
        notice.warning("Ray's workers may lack the injector: %r" % error)
        return runtime_env


def _with_injector(runtime_env):
    """The job's runtime_env with the injector's variables added. The runtime_env's own values win."""
    changed = copy.copy(runtime_env) if runtime_env else {}
    own = dict(changed.get("env_vars") or {})
    ours = {
        name: value for name, value in os.environ.items() if name.startswith("NEMOTRON_EXEC_") or name in _VARIABLES
    }
    # Ray expands `${PYTHONPATH}` to the node's value.
    path = _prepended(own["PYTHONPATH"]) if "PYTHONPATH" in own else _INJECTOR + os.pathsep + "${PYTHONPATH}"
    changed["env_vars"] = {**ours, **own, "PYTHONPATH": path}
    return changed


def _in_front(runtime_env):
    """Prepend the injector to a PYTHONPATH in a task's or actor's runtime_env, which would replace the job's."""
    own = runtime_env.get("env_vars") if isinstance(runtime_env, dict) else None
    if not own or not isinstance(own.get("PYTHONPATH"), str):
        return runtime_env
    changed = copy.copy(runtime_env)
    changed["env_vars"] = {**own, "PYTHONPATH": _prepended(own["PYTHONPATH"])}
    return changed


def _prepended(path):
    entries = path.split(os.pathsep) if path else []
    return path if _INJECTOR in entries else os.pathsep.join([_INJECTOR, *entries])


def _drop_empty_entry():
    """Remove the empty entry (the working directory) that `INJECTOR:${PYTHONPATH}` leaves without PYTHONPATH."""
    if not os.environ.get("PYTHONPATH", "").endswith(_INJECTOR + os.pathsep):
        return
    os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"].rstrip(os.pathsep)
    after = sys.path.index(_INJECTOR) + 1 if _INJECTOR in sys.path else len(sys.path)
    if sys.path[after : after + 1] == [os.getcwd()]:
        del sys.path[after]
