"""The environment variables beside the options' twins: one table, for the reference page and its test."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OTHERS", "VARIABLES", "Variable"]


@dataclass(frozen=True)
class Variable:
    """One row of the table.

    Attributes:
        name: The variable.
        reader: `launcher`, before the command; `job`, in every Python of it; `bundle`, to start the launcher.
        default: What holds without it.
        meaning: One sentence.
        given: Whether the launcher sets or removes it for the job.
    """

    name: str
    reader: str
    default: str
    meaning: str
    given: bool = False


VARIABLES: tuple[Variable, ...] = (
    Variable("NEMOTRON_EXEC_ACTIVE", "job", "", "The launcher's version; without it the injector does nothing.", True),
    Variable("NEMOTRON_EXEC_HANDOFF", "job", "", "The hand-off file; removed where nothing was resolved.", True),
    Variable("NEMOTRON_EXEC_STORE", "launcher, job", "", "Root of the manifest store, decided.", True),
    Variable("NEMOTRON_EXEC_BACKEND", "launcher, job", "", "`wandb` or `manifest`, decided.", True),
    Variable("NEMOTRON_EXEC_PYTHON", "job", "", "The launcher's own interpreter, which has fsspec.", True),
    Variable(
        "NEMOTRON_EXEC_DISABLE",
        "launcher, job",
        "0",
        "`1`: the launcher starts the command as it is, and the injector does nothing.",
    ),
    Variable(
        "NEMOTRON_EXEC_DISABLED_PATCHES",
        "job",
        "none",
        "Patches to leave out, separated by commas: `lineage`, `megatron-bridge`, `nemo-rl`, `resolvers`, `kit`, "
        "`nemo-run`.",
    ),
    Variable("NEMOTRON_EXEC_STRICT", "launcher, job", "0", "`1`: a failure of ours in the job is fatal.", True),
    Variable("NEMOTRON_EXEC_VERBOSE", "launcher, job", "0", "`1`: say more."),
    Variable("NEMOTRON_EXEC_QUIET", "launcher, job", "0", "`1`: say nothing but warnings and errors."),
    Variable("NEMOTRON_EXEC_TEMPFAIL_CODE", "launcher", "75", "Exit code for failures that may pass later."),
    Variable("NEMOTRON_EXEC_NODE_RANK", "launcher", "see place", "This launcher's number; wins over the scheduler's."),
    Variable("NEMOTRON_EXEC_NNODES", "launcher", "see place", "How many launchers the job has."),
    Variable("NEMOTRON_EXEC_HEAD_START", "launcher", "2", "Seconds for which the others leave the lead to launcher 0."),
    Variable(
        "NEMOTRON_EXEC_RENDEZVOUS_PORT",
        "launcher",
        "the job's master port + 1",
        "Port of `--rendezvous c10d` on node 0.",
    ),
    Variable(
        "NEMOTRON_EXEC_CHECKPOINT_WAIT",
        "job",
        "not set",
        "`block`: the training thread waits until a checkpoint is where it belongs.",
    ),
    Variable(
        "NEMOTRON_EXEC_CHECKPOINT_DRAIN",
        "job",
        "30",
        "Seconds for which the end of the process waits for what is not yet sent; 0 for not at all.",
    ),
    Variable("NEMOTRON_EXEC_LINEAGE_TIMEOUT", "job", "5", "Seconds by which `wandb.init` may take longer."),
    Variable("NEMOTRON_EXEC_CODE_REF", "job", "git's commit", "Which code runs, for the run record."),
    Variable("NEMOTRON_EXEC_IMAGE", "job", "the container runtime's", "Which image runs, for the run record."),
    Variable("NEMOTRON_EXEC_BUNDLE_PYTHON", "bundle", "searched for", "The interpreter that starts the bundle."),
)

OTHERS: tuple[Variable, ...] = (
    Variable("NEMOTRON_ENV_FILE", "launcher", "nearest env.toml", "env.toml, as in the Nemotron CLI."),
    Variable(
        "NEMO_ARTIFACT_ROOT",
        "launcher, job",
        "the user's data directory",
        "Root of the manifests, as in Nemotron.",
    ),
    Variable("NEMO_RUN_DIR", "launcher, job", "", "Where `/nemo_run` is, where it is not mounted."),
    Variable(
        "WANDB_PROJECT", "launcher, job", "config, env.toml", "W&B project; set for the job where it is not set.", True
    ),
    Variable(
        "WANDB_ENTITY", "launcher, job", "config, env.toml", "W&B entity; set for the job where it is not set.", True
    ),
    Variable("WANDB_API_KEY", "launcher, job", "netrc, wandb's settings", "Read by wandb."),
    Variable("WANDB_MODE", "launcher, job", "online", "`offline`, `disabled`: the manifest store is asked."),
    Variable("PYTHONPATH", "job", "", "Gets the injector's directory as its first entry.", True),
)
