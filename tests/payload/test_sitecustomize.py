"""The injector reaches every Python of a job, changes nothing else in it, and never breaks it."""

from __future__ import annotations

import ast
import glob
import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from nemotron_exec import __version__
from nemotron_exec.environment import injector_directory

ROOT = Path(__file__).resolve().parents[2]
TARGET = "megatron.bridge.training.utils.wandb_utils"
MINORS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")


def _interpreters():
    """Every Python from 3.8 to 3.13 on this machine, by version; at least the one that runs the tests.

    Each worker of the tests needs this list, so it starts only a Python whose version is not in its path.
    """
    found = {"{}.{}".format(*sys.version_info): sys.executable}
    roots = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    for python in glob.glob(f"{roots}/versions/*/bin/python3"):
        found.setdefault(os.path.basename(os.path.realpath(python)).removeprefix("python"), python)
    for minor in MINORS:
        python = shutil.which(f"python{minor}")
        if minor not in found and python and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            found[minor] = python
    return {minor: python for minor, python in found.items() if minor in MINORS}


INTERPRETERS = _interpreters()


@pytest.fixture(params=sorted(INTERPRETERS))
def python(request):
    return INTERPRETERS[request.param]


@pytest.fixture
def run(tmp_path):
    """Run code in a Python of a job, with a framework that has a patched module."""
    package = tmp_path / "framework" / "megatron" / "bridge" / "training" / "utils"
    package.mkdir(parents=True)
    for directory in (package, *package.parents[:3]):
        (directory / "__init__.py").write_text("")
    (package / "wandb_utils.py").write_text(
        '"""A framework\'s module."""\n'
        "def on_save_checkpoint_success(checkpoint_path, save_dir, iteration, wandb_writer):\n"
        '    """Called when a checkpoint is complete."""\n'
        "    return 'its own'\n"
    )

    def run(code, *, python=sys.executable, options=(), path=(), active=True, check=True, args=(), **environ):
        entries = [injector_directory(), *map(str, path), str(tmp_path / "framework")]
        done = subprocess.run(
            [python, *options, "-c", textwrap.dedent(code), *args],
            env={
                "PATH": os.environ["PATH"],
                "HOME": os.environ["HOME"],
                "PYTHONPATH": os.pathsep.join(entries),
                "NEMOTRON_EXEC_STORE": str(tmp_path / "store"),
                **({"NEMOTRON_EXEC_ACTIVE": __version__} if active else {}),
                **environ,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check:
            assert done.returncode == 0, done.stderr
            assert done.stderr == "", done.stderr
        return done

    run.directory = tmp_path
    return run


IS_PATCHED = f"""
import {TARGET} as module
assert hasattr(module.on_save_checkpoint_success, "_nemotron_exec_original"), module
print("patched")
"""


def test_every_supported_python_is_tried_on_ci():
    if os.environ.get("CI") == "true":
        assert sorted(INTERPRETERS) == sorted(MINORS)
    assert sys.executable in INTERPRETERS.values()


def test_patches_a_framework_when_it_is_imported(run, python):
    assert run(IS_PATCHED, python=python).stdout == "patched\n"


def test_nothing_is_loaded_at_start_that_bare_python_does_not_load(run, python):
    code = "import sys; print(sorted(sys.modules))"
    ours = set(ast.literal_eval(run(code, python=python).stdout))
    bare = set(ast.literal_eval(_bare(python, code)))
    assert ours - bare == {"sitecustomize"}


def test_without_a_job_nothing_is_installed(run, python):
    code = "import sys; print(sum(hasattr(finder, 'nemotron_exec') for finder in sys.meta_path))"
    assert run(code, python=python).stdout == "1\n"
    assert run(code, python=python, active=False).stdout == "0\n"
    assert run(code, python=python, NEMOTRON_EXEC_DISABLE="1").stdout == "0\n"


def test_the_directory_offers_no_name_but_sitecustomize(run, python):
    code = """
        import importlib, importlib.util, pkgutil, sys
        importlib.invalidate_caches()
        directory = sys.path[1]
        print([name for name in ("payload", "apply", "checkpoint", "patches") if importlib.util.find_spec(name)])
        print([module.name for module in pkgutil.iter_modules([directory])])
        print(sys.modules["sitecustomize"].__file__.startswith(directory))
    """
    assert run(code, python=python).stdout == "[]\n[]\nTrue\n"


def test_the_module_looks_as_without_us(run, python):
    code = f"""
        import importlib, importlib.util, inspect, pickle, sys
        spec = importlib.util.find_spec("{TARGET}")
        import {TARGET} as module
        loader = type(module.__loader__)
        assert loader.__module__ in ("importlib._bootstrap_external", "_frozen_importlib_external"), loader
        assert module.__spec__.loader is module.__loader__
        assert "exec_module" not in vars(module.__loader__)
        assert "on_save_checkpoint_success" in inspect.getsource(module)
        function = module.on_save_checkpoint_success
        assert function.__doc__ == "Called when a checkpoint is complete."
        assert function.__module__ == module.__name__
        assert list(inspect.signature(function).parameters)[0] == "checkpoint_path"
        assert pickle.loads(pickle.dumps(function)) is function
        again = importlib.reload(module)
        assert again is module
        print("same")
    """
    assert run(code, python=python).stdout == "same\n"


def test_python_m_of_a_patched_module_still_runs(run):
    done = run("", options=("-m", TARGET))
    assert done.returncode == 0


def test_a_reference_taken_before_the_patch_is_patched_too(run):
    # A .pth file or -X importtime hook may import the framework before sitecustomize.
    code = f"""
        import sys
        sys.meta_path[:] = [finder for finder in sys.meta_path if not getattr(finder, "nemotron_exec", False)]
        del sys.modules["sitecustomize"]
        import {TARGET} as module
        from {TARGET} import on_save_checkpoint_success as taken
        sys.path_importer_cache.clear()
        import sitecustomize
        assert hasattr(module.on_save_checkpoint_success, "_nemotron_exec_original")
        print(hasattr(taken, "_nemotron_exec_original"))
    """
    assert run(code).stdout == "True\n"


CHILDREN = {
    "subprocess": "import subprocess, sys; subprocess.run([sys.executable, '-c', CODE], check=True)",
    "spawn": "import multiprocessing as m; p = m.get_context('spawn').Process(target=exec, args=(CODE,)); p.start(); "
    "p.join(); assert p.exitcode == 0",
    "forkserver": "import multiprocessing as m; p = m.get_context('forkserver').Process(target=exec, args=(CODE,)); "
    "p.start(); p.join(); assert p.exitcode == 0",
    "fork": "import multiprocessing as m; p = m.get_context('fork').Process(target=exec, args=(CODE,)); p.start(); "
    "p.join(); assert p.exitcode == 0",
    "a shell between": "import subprocess, sys; subprocess.run(['sh', '-c', '\"$0\" -c \"$1\"', sys.executable, CODE], "
    "check=True)",
}


@pytest.mark.parametrize("how", CHILDREN.values(), ids=CHILDREN)
def test_reaches_children(run, how):
    assert "patched" in run(f"CODE = {IS_PATCHED!r}\nif __name__ == '__main__':\n    {how}").stdout


def test_reaches_another_virtual_environment(run, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    assert run(IS_PATCHED, python=str(tmp_path / "venv" / "bin" / "python")).stdout == "patched\n"


@pytest.mark.parametrize("options", [("-S",), ("-E",), ("-I",)])
def test_options_that_switch_it_off_do_no_harm(run, options):
    assert run("print('runs')", options=options).stdout == "runs\n"


# -- the sitecustomize that the injector hides -----------------------------------------------------------------------


FORMS = ("module", "package", "bytecode")


def _hidden(directory, form, text):
    directory.mkdir()
    if form == "package":
        (directory / "sitecustomize").mkdir()
        (directory / "sitecustomize" / "__init__.py").write_text(text)
        (directory / "sitecustomize" / "part.py").write_text("value = 7\n")
    else:
        (directory / "sitecustomize.py").write_text(text)
    if form == "bytecode":
        import py_compile

        py_compile.compile(str(directory / "sitecustomize.py"), str(directory / "sitecustomize.pyc"))
        (directory / "sitecustomize.py").unlink()
    return directory


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("active", [True, False])
def test_the_hidden_sitecustomize_runs_once_and_is_the_one_in_sys_modules(run, form, active):
    text = "import builtins; builtins.runs = getattr(builtins, 'runs', 0) + 1; mine = True\n"
    hidden = _hidden(run.directory / "hidden", form, text)
    code = "import sys, sitecustomize; print(runs, sitecustomize.mine, sys.path.count(sys.path[1]))"
    assert run(code, path=[hidden], active=active).stdout == "1 True 1\n"


@pytest.mark.parametrize("inside", ["lib.zip", "lib.egg", "lib.egg/part"])
def test_one_in_an_archive_is_run(run, inside):
    archive, _, part = inside.partition("/")
    with zipfile.ZipFile(run.directory / archive, "w") as zipped:
        zipped.writestr(os.path.join(part, "sitecustomize.py"), "mine = True\n")
    code = "import sitecustomize; print(sitecustomize.mine)"
    assert run(code, path=[run.directory / inside]).stdout == "True\n"


def test_one_that_only_the_finder_of_a_pth_file_finds_is_run(run, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site_packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    elsewhere = _hidden(run.directory / "elsewhere", "module", "mine = True\n")
    (site_packages / "editable_finder.py").write_text(
        textwrap.dedent(f"""
            import importlib.util, sys
            class Finder:
                @staticmethod
                def find_spec(name, path=None, target=None):
                    if name == "sitecustomize":
                        return importlib.util.spec_from_file_location(name, {str(elsewhere / "sitecustomize.py")!r})
            sys.meta_path.append(Finder)
        """)
    )
    (site_packages / "editable.pth").write_text("import editable_finder\n")
    code = "import sitecustomize; print(sitecustomize.mine)"
    assert run(code, python=str(tmp_path / "venv" / "bin" / "python")).stdout == "True\n"


def test_a_package_may_import_its_parts_later(run):
    hidden = _hidden(
        run.directory / "hidden", "package", "def later():\n    from . import part\n    return part.value\n"
    )
    assert run("import sitecustomize; print(sitecustomize.later())", path=[hidden]).stdout == "7\n"


ERRORS = {
    "an exception": "raise RuntimeError('theirs')",
    "a missing import": "import no_such_module_of_theirs",
    "SystemExit": "raise SystemExit(3)",
}


@pytest.mark.parametrize("text", ERRORS.values(), ids=ERRORS)
def test_its_errors_are_those_of_bare_python(run, text):
    hidden = _hidden(run.directory / "hidden", "module", text + "\n")
    ours = run("print('runs')", path=[hidden], check=False)
    bare = subprocess.run(
        [sys.executable, "-c", "print('runs')"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(hidden)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ours.returncode, ours.stdout) == (bare.returncode, bare.stdout)
    assert bool(ours.stderr) == bool(bare.stderr)


def test_without_one_the_name_is_ours(run, python):
    assert run("import sitecustomize; print(sitecustomize.__file__)", python=python).stdout.startswith(
        injector_directory()
    )


def test_two_installs_have_one_finder_and_run_the_hidden_one_once(run):
    copy = run.directory / "copy"
    shutil.copytree(injector_directory(), copy)
    hidden = _hidden(
        run.directory / "hidden", "module", "import builtins; builtins.n = getattr(builtins, 'n', 0) + 1\n"
    )
    code = "import sys; print(n, sum(hasattr(finder, 'nemotron_exec') for finder in sys.meta_path))"
    assert run(code, path=[copy, hidden]).stdout == "1 1\n"
    assert run(IS_PATCHED, path=[copy, hidden]).stdout == "patched\n"


# -- another tool's sitecustomize that runs the injector -------------------------------------------------------------

# Each way gets `path`, the file that it has found, and `text`, the file's content.
WAYS = {
    "exec in a new namespace": """
        exec(compile(text, path, "exec"), {"__name__": "sitecustomize", "__file__": path})
    """,
    "exec in an empty namespace": "exec(text, {})",
    "exec in its own namespace": "exec(text)",
    "exec in a function": """
        def chain(text):
            exec(text)
        chain(text)
    """,
    "a module of another name": """
        spec = importlib.util.spec_from_file_location("_the_next_one", path)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    """,
    "a module of another name in sys.modules": """
        spec = importlib.util.spec_from_file_location("_the_next_one", path)
        sys.modules["_the_next_one"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["_the_next_one"])
    """,
    "in its own module": """
        importlib.util.spec_from_file_location("sitecustomize", path).loader.load_module("sitecustomize")
    """,
    "runpy": """
        import runpy
        runpy.run_path(path)
    """,
    "an import without its own directory": """
        this = sys.modules.pop("sitecustomize")
        sys.path.remove(here)
        import sitecustomize
        sys.path.insert(0, here)
    """,
    "twice": """
        for _ in range(2):
            exec(compile(text, path, "exec"), {"__name__": "sitecustomize", "__file__": path})
    """,
}
TOOL = """
import importlib.util, os, sys
here = os.path.dirname(__file__)
_start = _chain = main = find_spec = hooks = "the tool's own"
for entry in sys.path:
    path = os.path.join(entry, "sitecustomize.py")
    if entry != here and os.path.isfile(path):
        with open(path) as file:
            text = file.read()
        {}
        break
assert _start == _chain == main == find_spec == hooks == "the tool's own"
sys.went_on = getattr(sys, "went_on", 0) + 1
"""
RUN_BY_A_TOOL = IS_PATCHED + "import sys\nprint(sys.went_on, sum(hasattr(f, 'nemotron_exec') for f in sys.meta_path))\n"


def _tool(directory, way):
    directory.mkdir()
    way = textwrap.indent(textwrap.dedent(way).strip(), " " * 8).strip()
    (directory / "sitecustomize.py").write_text(TOOL.format(way))
    return directory


@pytest.mark.parametrize("way", WAYS)
def test_however_a_tool_runs_it_the_hook_is_there_once_and_the_tool_goes_on(run, python, way):
    tool = _tool(run.directory / "tool", WAYS[way])
    hidden = _hidden(run.directory / "hidden", "module", "import sys; sys.hidden = getattr(sys, 'hidden', 0) + 1\n")
    path = os.pathsep.join(map(str, (tool, injector_directory(), hidden, run.directory / "framework")))
    code = RUN_BY_A_TOOL + "print(sys.hidden)\n"
    done = run(code, python=python, PYTHONPATH=path, PYTHONWARNINGS="ignore")
    assert done.stdout == "patched\n1 1\n1\n"


@pytest.mark.ci
def test_pdm_runs_it_for_its_packages(run, python):
    from importlib import metadata

    pep582 = metadata.distribution("pdm").locate_file("pdm/pep582")
    hidden = _hidden(run.directory / "hidden", "module", "import sys; sys.hidden = getattr(sys, 'hidden', 0) + 1\n")
    (version,) = (minor for minor, path in INTERPRETERS.items() if path == python)
    packages = run.directory / "__pypackages__" / version / "lib"
    packages.mkdir(parents=True)
    (packages / "of_pdm.py").write_text("")
    code = IS_PATCHED + "import of_pdm, sys\nprint(sum(hasattr(f, 'nemotron_exec') for f in sys.meta_path), sys.hidden)"
    for entries in ((pep582, injector_directory(), hidden), (injector_directory(), pep582, hidden)):
        path = os.pathsep.join(map(str, (*entries, run.directory / "framework")))
        assert run(code, python=python, PYTHONPATH=path).stdout == "patched\n1 1\n"


def test_a_tool_that_runs_it_at_the_second_place_runs_once(run, python):
    tool = _tool(run.directory / "tool", WAYS["exec in a new namespace"])
    # The injector runs first, then the tool behind it, which finds only the injector.
    done = run(RUN_BY_A_TOOL, python=python, path=[tool])
    assert done.stdout == "patched\n1 1\n"


def test_it_can_be_reloaded(run, python):
    code = (
        IS_PATCHED + "import importlib, sitecustomize, sys\nassert importlib.reload(sitecustomize) is sitecustomize\n"
    )
    code += "print(sum(hasattr(finder, 'nemotron_exec') for finder in sys.meta_path))"
    assert run(code, python=python).stdout == "patched\n1\n"
    hidden = _hidden(run.directory / "hidden", "module", "import sys; sys.n = getattr(sys, 'n', 0) + 1\n")
    code = "import importlib, sitecustomize, sys; importlib.reload(sitecustomize); print(sys.n)"
    assert run(code, python=python, path=[hidden]).stdout == "2\n"


# -- other hooks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["theirs first", "ours first"])
def test_works_beside_another_post_import_hook(run, order):
    hook = f"""
        import importlib.abc, importlib.util, sys
        class Loader(importlib.abc.Loader):
            def __init__(self, loader): self.loader = loader
            def create_module(self, spec): return self.loader.create_module(spec)
            def exec_module(self, module):
                self.loader.exec_module(module)
                module.theirs = True
        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name != "{TARGET}": return None
                index = sys.meta_path.index(self)
                for finder in sys.meta_path:
                    if finder is self: continue
                    spec = finder.find_spec(name, path, target)
                    if spec:
                        spec.loader = Loader(spec.loader)
                        return spec
        sys.meta_path.{"insert(0, Finder())" if order == "theirs first" else "insert(1, Finder())"}
    """
    assert run(textwrap.dedent(hook) + IS_PATCHED + "\nassert module.theirs\n").stdout == "patched\n"


def test_a_module_in_a_zip_archive_is_patched_and_its_neighbours_are_not(run, python):
    archive = run.directory / "lib.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted((run.directory / "framework").rglob("*.py")):
            zipped.write(path, path.relative_to(run.directory / "framework"))
        zipped.writestr("neighbour.py", "value = 1\n")
    shutil.rmtree(run.directory / "framework")
    code = IS_PATCHED + "assert not {'exec_module', 'load_module'} & set(vars(module.__loader__))\n"
    code += "import neighbour; print(neighbour.value)"
    assert run(code, python=python, path=[archive]).stdout == "patched\n1\n"


def test_a_loader_that_cannot_be_hooked_is_a_warning(run):
    code = f"""
        import importlib.machinery, sys
        class Loader:
            __slots__ = ()
            def create_module(self, spec): return None
            def exec_module(self, module): module.theirs = True
        class Finder:
            def find_spec(self, name, path=None, target=None):
                return importlib.machinery.ModuleSpec(name, Loader()) if name == "{TARGET}" else None
        sys.meta_path.insert(1, Finder())
        import {TARGET} as module
        print(module.theirs)
    """
    done = run(code, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert done.stderr.startswith(f"nemotron-exec: warning: could not patch {TARGET}: AttributeError: ")


def test_a_folder_called_nemotron_hides_nothing_and_is_not_hidden(run, python):
    for name, value in (("recipes/train.py", "own"), ("kit/own.py", "own"), ("kit/resolvers.py", "own first")):
        path = run.directory / "nemotron" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"value = {value!r}\n")
    code = """
        import nemotron.kit.wandb, nemotron.kit.own, nemotron.kit.resolvers, nemotron.recipes.train
        assert callable(nemotron.kit.wandb.patch_wandb_init_for_lineage)
        print(nemotron.recipes.train.value, nemotron.kit.own.value, nemotron.kit.resolvers.value, sep=", ")
    """
    assert run(code, python=python).stdout == "own, own, own first\n"


def test_a_package_called_nemotron_is_the_jobs_own(run, python):
    package = run.directory / "nemotron"
    package.mkdir()
    (package / "__init__.py").write_text("mine = True\n")
    code = """
        import nemotron
        print(nemotron.mine)
        try:
            import nemotron.kit
        except ImportError:
            print("no kit")
    """
    assert run(code, python=python).stdout == "True\nno kit\n"


def test_an_error_of_the_framework_is_its_own(run):
    (run.directory / "framework/megatron/bridge/training/utils/wandb_utils.py").write_text("raise OSError('theirs')\n")
    done = run(f"import {TARGET}", check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("OSError: theirs")
    assert "nemotron-exec" not in done.stderr


def test_our_own_failure_is_one_warning_and_the_job_goes_on(run):
    copy = run.directory / "broken"
    shutil.copytree(injector_directory(), copy)
    (copy / "payload" / "patches" / "megatron_bridge.py").write_text("raise RuntimeError('ours')\n")
    done = run(f"import {TARGET}; print('trains')", PYTHONPATH=f"{copy}:{run.directory}/framework", check=False)
    assert (done.returncode, done.stdout) == (0, "trains\n")
    assert done.stderr.count("nemotron-exec: warning: ") == 1
    strict = run(
        f"import {TARGET}; print('trains')",
        PYTHONPATH=f"{copy}:{run.directory}/framework",
        NEMOTRON_EXEC_STRICT="1",
        check=False,
    )
    assert strict.returncode != 0


@pytest.mark.parametrize("how", ["it raises", "it is not there"])
def test_strict_a_failure_at_start_is_fatal(run, tmp_path, python, how):
    copy = tmp_path / "copy"
    shutil.copytree(injector_directory(), copy)
    start = copy / "payload/start.py"
    if how == "it raises":
        start.write_text(
            start.read_text().replace("def _install(os):", "def _install(os):\n    raise RuntimeError('ours')")
        )
        warning = "warning: could not install its import hooks: RuntimeError: ours"
        error = "could not install its import hooks: RuntimeError('ours')"
    else:
        start.unlink()
        warning = error = f"warning: could not load {start}: "
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("print('hidden')\n")
    given = {"python": python, "check": False, "PYTHONPATH": f"{copy}{os.pathsep}{hidden}"}
    mild, strict = (run("print('went on')", **given, NEMOTRON_EXEC_STRICT=value) for value in "01")
    assert (mild.returncode, mild.stdout) == (0, "hidden\nwent on\n"), mild.stderr
    assert warning in mild.stderr
    assert strict.returncode != 0
    assert strict.stdout == ""
    assert error in strict.stderr


def test_a_python_too_old_only_runs_what_we_hide(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(injector_directory(), copy)
    source = (copy / "sitecustomize.py").read_text()
    (copy / "sitecustomize.py").write_text(source.replace("(3, 8)", "(99, 0)"))
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys; sys.ran = True\n")
    code = "import sys, json, decimal; print([sys.ran, [f for f in sys.meta_path if hasattr(f, 'nemotron_exec')]])"
    roots = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    for python in [
        sys.executable,
        *(one for old in ("2.7", "3.6", "3.7") for one in glob.glob(f"{roots}/versions/{old}.*/bin/python")),
    ]:
        assert run(code, python=python, PYTHONPATH=f"{copy}{os.pathsep}{hidden}").stdout == "[True, []]\n"


def test_patches_can_be_switched_off_by_name(run):
    code = f"import {TARGET} as m; print(hasattr(m.on_save_checkpoint_success, '_nemotron_exec_original'))"
    assert run(code, NEMOTRON_EXEC_DISABLED_PATCHES="lineage,megatron-bridge").stdout == "False\n"
    assert run(code, NEMOTRON_EXEC_DISABLED_PATCHES="lineage").stdout == "True\n"


# -- paths below a missing /nemo_run ---------------------------------------------------------------------------------


def test_nemo_run_is_translated_where_it_does_not_exist(run, python):
    assert not os.path.lexists("/nemo_run")
    code = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['OUT'], os.environ['NEMO_RUN_DIR']]))"
    words = ["/nemo_run/a", "--save=/nemo_run/b", "x=[/nemo_run/c,/nemo_run]", "/nemo_runs/d", "x/nemo_run/e"]
    done = run(code, python=python, args=words, NEMO_RUN_DIR="/lustre/jobs/7", OUT="/nemo_run/out")
    j = "/lustre/jobs/7"
    assert json.loads(done.stdout) == [
        [f"{j}/a", f"--save={j}/b", f"x=[{j}/c,{j}]", "/nemo_runs/d", "x/nemo_run/e"],
        f"{j}/out",
        j,
    ]


def test_nothing_is_translated_without_nemo_run_dir(run):
    assert run("import sys; print(sys.argv[1])", args=["/nemo_run/a"]).stdout == "/nemo_run/a\n"


# -- the wheel -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, ROOT],
        check=True,
        capture_output=True,
    )
    (path,) = directory.glob("*.whl")
    with zipfile.ZipFile(path) as zipped:
        yield zipped.namelist()


def test_the_wheel_puts_nothing_at_the_top_of_site_packages(wheel):
    # The scripts lie in .data, and are installed beside the interpreter.
    ours = f"nemotron_exec-{__version__}"
    assert {name.split("/")[0] for name in wheel} == {"nemotron_exec", f"{ours}.data", f"{ours}.dist-info"}


def test_the_wheel_ships_the_injectors_bytecode(wheel):
    for python in INTERPRETERS:
        tag = "cpython-" + python.replace(".", "")
        assert f"nemotron_exec/sitecustomize/__pycache__/sitecustomize.{tag}.pyc" in wheel
        assert f"nemotron_exec/sitecustomize/payload/__pycache__/apply.{tag}.pyc" in wheel


def _bare(python, code):
    return subprocess.run(
        [python, "-c", code], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
    ).stdout
