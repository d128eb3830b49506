"""Scripts that call NVIDIA's kit, which is installed or inlined into `main.py` as the Nemotron CLI ships it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from nemotron_exec import __version__
from nemotron_exec.environment import injector_directory
from nemotron_exec.sitecustomize.payload.manifest import listing, read
from support.places import ROOT

KIT = ROOT / "tests" / "doubles" / "nvidia_kit"
RESOLVERS = KIT / "nemo_runspec" / "config" / "resolvers.py"
WANDB_KIT = KIT / "nemotron" / "kit" / "wandb_kit.py"
CONFIG = "run: {data: 'blend:latest', model: 'super3/rl/data:latest'}\npath: ${art:data,path}\nn: ${art:model,size}\n"


@pytest.fixture(params=["installed", "written into main.py"])
def script(request, tmp_path, wandb_environ):
    """Runs `body` as the script of a job, with the kit's functions defined."""
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    artifacts = [
        _artifact("data", "blend:latest", "blend", "v1", path="/pinned"),
        _artifact("model", "super3/rl/data:latest", "super3-rl-data", "v0", metadata={"size": 7}),
    ]
    handoff = tmp_path / "handoff.json"
    handoff.write_text(json.dumps({"schema": 1, "artifacts": artifacts, "wandb": {"tags": ["nightly"]}}))
    imports = """
        from nemo_runspec.config.resolvers import *
        from nemotron.kit.wandb_kit import *
    """
    inlined = request.param != "installed"
    paths = [
        injector_directory(),
        *([] if inlined else [str(KIT)]),
        str(ROOT / "tests" / "doubles" / "nemo_rl_released"),
    ]

    def run(body, check=True, **environ):
        head = RESOLVERS.read_text() + WANDB_KIT.read_text() if inlined else textwrap.dedent(imports)
        head = head.replace("from __future__ import annotations\n", "")
        (tmp_path / "main.py").write_text(head + "\n\ndef main():\n" + textwrap.indent(textwrap.dedent(body), "    "))
        with (tmp_path / "main.py").open("a") as file:
            file.write('\n\nif __name__ == "__main__":\n    main()\n')
        done = subprocess.run(
            [sys.executable, "main.py"],
            cwd=tmp_path,
            env={
                **os.environ,
                **wandb_environ,
                "PYTHONPATH": ":".join(paths),
                "NEMOTRON_EXEC_ACTIVE": __version__,
                "NEMOTRON_EXEC_HANDOFF": str(handoff),
                "NEMOTRON_EXEC_STORE": str(tmp_path / "store"),
                **environ,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    run.store = str(tmp_path / "store")
    run.inlined = inlined
    return run


def _artifact(key, reference, name, version, path="/data", metadata=None):
    return {
        "key": key,
        "reference": reference,
        "store": "wandb",
        "name": name,
        "version": version,
        "path": path,
        "qualified_name": f"team/nemotron/{name}:{version}",
        "fields": {},
        "metadata": metadata or {},
    }


@pytest.mark.parametrize("mode", ["pre_init", "local"])
def test_what_the_launcher_has_pinned_is_not_asked_for_again(script, mode):
    done = script(f"""
        config = OmegaConf.load("cfg.yaml")
        clear_artifact_cache()
        print(register_resolvers_from_config(config, artifacts_key="run", mode="{mode}"))
        print(config.path, config.n, resolve_artifact_pre_init("blend:latest")["version"])
    """)
    assert done.stdout.splitlines() == ["['team/nemotron/blend:v1']", "/pinned 7 v1"]


def test_a_reference_that_the_launcher_was_not_given_is_the_kits_to_look_up(script):
    done = script("""
        config = OmegaConf.load("cfg.yaml")
        names = register_resolvers({"data": "blend:latest", "other": "extra:v2"}, mode="pre_init")
        print(names, OmegaConf.create({"x": "${art:other,path}", "y": "${art:data,path}"}).x)
    """)
    assert done.stdout.splitlines() == [
        "asked W&B for extra:v2",
        "['team/nemotron/blend:v1', 'team/nemotron/extra:v9'] /moved",
    ]


def test_an_input_is_one_edge_after_latest_has_moved_and_all_tags_are_set(script, wandb_backend):
    for content in (b"0", b"1", b"2"):  # the job was pinned to v1
        wandb_backend.seed("team/nemotron/blend", files={"a.txt": content}, metadata={})
    wandb_backend.seed("team/nemotron/super3-rl-data", files={"a.txt": b"x"}, metadata={})
    done = script(
        """
        config = OmegaConf.load("cfg.yaml")
        names = register_resolvers_from_config(config, mode="pre_init")
        patch_wandb_init_for_lineage(artifact_qualified_names=names, tags=["pretrain"])
        import wandb
        run = wandb.init(project="nemotron", entity="team")
        print(run.use_artifact("team/nemotron/blend:latest").version, sorted(run.tags))
        wandb.finish()
        """,
        WANDB_SILENT="true",
    )
    assert done.stdout.splitlines()[-1] == "v1 ['nightly', 'pretrain']"
    assert wandb_backend.operations("UseArtifact") == 2
    asked = sorted(one.variables["name"] for one in wandb_backend.find("ArtifactMembershipByName"))
    assert asked == ["blend:v1", "super3-rl-data:v0"]


@pytest.mark.parametrize("function", ["patch_nemo_rl_checkpoint_logging", "patch_nemo_rl_checkpoint_logging_both"])
def test_a_checkpoint_of_rl_has_the_scripts_name_once(script, function):
    done = script(f"""
        {function}(artifact_name="nano3-rl-model")
        {SAVE}
    """)
    assert "the kit logs" not in done.stdout
    assert listing.names(script.store) == ["nano3-rl-model"]
    assert listing.versions(script.store, "nano3-rl-model") == [1]


def test_the_kits_own_default_name_holds_too(script):
    script(f"""
        patch_nemo_rl_checkpoint_logging()
        {SAVE}
    """)
    assert listing.names(script.store) == ["rl"]


SAVE = """from nemo_rl.utils.checkpoint import CheckpointManager
        manager = CheckpointManager({"checkpoint_dir": "out/grpo", "metric_name": None, "higher_is_better": True,
                                     "keep_top_k": None, "save_period": 10, "save_optimizer": True})
        path = manager.init_tmp_checkpoint(10, {"step": 10}, None)
        manager.finalize_checkpoint(path)"""


def test_a_scripts_own_function_in_nemo_rls_place_is_called_and_the_checkpoint_recorded_once(script):
    done = script(f"""
        from nemo_rl.utils.checkpoint import CheckpointManager
        before = CheckpointManager.finalize_checkpoint
        def mine(self, checkpoint_path):
            before(self, checkpoint_path)
            print("mine")
        CheckpointManager.finalize_checkpoint = mine
        {SAVE}
    """)
    assert done.stdout.splitlines() == ["mine"]
    found = read.read_version(script.store, "grpo", 1).manifest
    assert (listing.versions(script.store, "grpo"), found["metadata"]["step"]) == ([1], 10)


@pytest.mark.torch
@pytest.mark.parametrize("calls", [True, False], ids=["and calls the class's", "and does not"])
def test_a_subclass_may_complete_checkpoints_in_a_way_of_its_own(script, calls):
    step = "super().finalize_checkpoint(checkpoint_path)" if calls else "os.rename(checkpoint_path, out)"
    done = script(f"""
        import os
        import nemo_rl.utils.checkpoint
        class CheckpointManager(nemo_rl.utils.checkpoint.CheckpointManager):
            def finalize_checkpoint(self, checkpoint_path):
                out = os.path.join(os.path.dirname(checkpoint_path), "step_10")
                {step}
                print("mine")
        {SAVE.partition(chr(10))[2].strip()}
    """)
    assert done.stdout.splitlines() == ["mine"]
    assert listing.versions(script.store, "grpo") == [1]


@pytest.mark.parametrize("calls", [True, False], ids=["and calls the manager's", "and does not"])
def test_a_function_that_is_put_on_one_manager_completes_a_checkpoint_too(script, calls):
    first, _, rest = SAVE.partition("path = ")
    step = "before(checkpoint_path)" if calls else "os.rename(checkpoint_path, 'out/grpo/step_10')"
    done = script(f"""
        import os
        {first.strip()}
        before = manager.finalize_checkpoint
        def mine(checkpoint_path):
            {step}
            print("mine")
        manager.finalize_checkpoint = mine
        path = {rest}
    """)
    assert done.stdout.splitlines() == ["mine"]
    assert listing.versions(script.store, "grpo") == [1]


def test_a_framework_that_is_imported_anew_is_patched_anew(script):
    script(f"""
        import sys, importlib, nemo_rl.utils.checkpoint
        importlib.reload(nemo_rl.utils.checkpoint)
        del sys.modules["nemo_rl.utils.checkpoint"]
        {SAVE}
    """)
    assert listing.versions(script.store, "grpo") == [1]


IMPORTS = {
    "the module under a name": """
        from nemo_runspec.config import resolvers as r
        register = r.register_resolvers_from_config
    """,
    "importlib": """
        import importlib
        register = importlib.import_module("nemo_runspec.config.resolvers").register_resolvers_from_config
    """,
    "reloaded": """
        import importlib, nemo_runspec.config.resolvers as r
        register = importlib.reload(r).register_resolvers_from_config
    """,
    "imported anew": """
        import sys
        sys.modules.pop("nemo_runspec.config.resolvers")
        from nemo_runspec.config.resolvers import register_resolvers_from_config as register
    """,
    "getattr, in a partial": """
        import functools, nemo_runspec.config
        register = functools.partial(getattr(nemo_runspec.config.resolvers, "register_resolvers_from_config"))
    """,
}


@pytest.mark.parametrize("script", ["installed"], indirect=True)
@pytest.mark.parametrize("style", IMPORTS.values(), ids=IMPORTS)
def test_the_kit_answers_from_the_pins_however_it_is_imported(script, style):
    done = script(f"""
        {textwrap.indent(textwrap.dedent(style), " " * 8).strip()}
        config = OmegaConf.load("cfg.yaml")
        print(register(config, mode="pre_init"), config.path)
    """)
    assert done.stdout.splitlines() == ["['team/nemotron/blend:v1'] /pinned"]


@pytest.mark.parametrize("hand", ["patch_wandb_checkpoint_logging()", "wandb_utils.on_save_checkpoint_success = mine"])
def test_a_function_in_megatrons_place_does_not_keep_its_checkpoints_from_the_store(script, hand):
    done = script(f"""
        import sys, os
        sys.path.insert(0, {str(ROOT / "tests" / "frameworks")!r})
        import megatron_module
        wandb_utils = megatron_module.light()
        def mine(checkpoint_path, save_dir, iteration, wandb_writer):
            print("mine", iteration)
        {hand}
        os.makedirs("out/pretrain/iter_0000004")
        wandb_utils.on_save_checkpoint_success("out/pretrain/iter_0000004", "out/pretrain", 4, None)
    """)
    assert done.stdout.splitlines() == (["mine 4"] if "mine" in hand else [])
    assert listing.versions(script.store, "pretrain") == [1]


LOGS_ITSELF = """
        import os, sys
        sys.path.insert(0, {frameworks!r})
        import megatron_module
        import wandb
        utils = megatron_module.light()
        run = wandb.init(project="nemotron", entity="team")
        def mine(checkpoint_path, save_dir, iteration, wandb_writer):
            artifact = wandb.Artifact("chosen-by-the-script", type="model", metadata={{"iteration": iteration}})
            artifact.add_reference("file://" + os.path.realpath(checkpoint_path), checksum=False)
            run.log_artifact(artifact, aliases=["latest", "mine"])
        utils.on_save_checkpoint_success = mine
        os.makedirs("out/pretrain/iter_0000004")
        open("out/pretrain/iter_0000004/weights", "w").write("w")
        utils.on_save_checkpoint_success("out/pretrain/iter_0000004", "out/pretrain", 4, None)
        wandb.finish()
"""


@pytest.mark.torch
def test_an_artifact_that_a_script_logs_for_a_checkpoint_is_the_checkpoints_name_included(script, wandb_backend):
    for content in (b"0", b"1"):
        wandb_backend.seed("team/nemotron/blend", files={"a.txt": content})
    wandb_backend.seed("team/nemotron/super3-rl-data", files={"a.txt": b"x"})
    done = script(LOGS_ITSELF.format(frameworks=str(ROOT / "tests" / "frameworks")), NEMOTRON_EXEC_BACKEND="wandb")
    assert "warning" not in done.stderr
    models = {
        name: [version.metadata for version in collection.versions]
        for name, collection in wandb_backend.model.entities["team"]["nemotron"].collections.items()
        if collection.type == "model"
    }
    assert list(models) == ["chosen-by-the-script"]
    (metadata,) = models["chosen-by-the-script"]
    assert metadata["iteration"] == 4
    assert metadata["absolute_path"].endswith("/out/pretrain")  # the patch has added the fields for the next job
    assert listing.names(script.store) == ["chosen-by-the-script"]
    assert listing.versions(script.store, "chosen-by-the-script") == [1]


def test_tags_of_the_config_are_tags_of_the_run(nemotron_exec, tmp_path, wandb_backend, wandb_environ):
    (tmp_path / "cfg.yaml").write_text(
        "run:\n  data: blend:latest\n  wandb: {project: nemotron, entity: team, tags: [nightly, 7]}\n"
    )
    wandb_backend.seed("team/nemotron/blend", files={"a.txt": b"0"})
    code = (
        "import sys, wandb; run = wandb.init(project='nemotron', entity='team', tags=['mine']); "
        "print(sorted(run.tags)); run.finish()"
    )
    done = nemotron_exec(sys.executable, "-c", code, "cfg.yaml", env=wandb_environ)
    assert done.stdout.splitlines()[-1] == "['7', 'mine', 'nightly']", done.stderr
