"""The environment variables that are no twin of an option, in one table for the reference page and its test."""

from __future__ import annotations

from dataclasses import dataclass

from nemotron_exec.sitecustomize.payload.frameworks import FRAMEWORKS

__all__ = ["OTHERS", "VARIABLES", "Variable"]


@dataclass(frozen=True)
class Variable:
    """One row of the table.

    Attributes:
        name: Name of the variable.
        reader: `launcher`, before the command; `job`, in every Python of it; `bundle`, to start the launcher.
        default: The behaviour without it.
        meaning: One sentence.
        given: Whether the launcher sets or removes it for the job.
    """

    name: str
    reader: str
    default: str
    meaning: str
    given: bool = False


VARIABLES: tuple[Variable, ...] = (
    Variable(
        "NEMOTRON_EXEC_HUB_OFFLINE", "launcher", "", "`1`: the launcher has set HF_HUB_OFFLINE, and not the user.", True
    ),
    Variable("NEMOTRON_EXEC_ACTIVE", "job", "", "The launcher's version; without it the injector does nothing.", True),
    Variable("NEMOTRON_EXEC_HANDOFF", "job", "", "The hand-off file; removed where nothing was resolved.", True),
    Variable(
        "NEMOTRON_EXEC_HANDOFF_VALUE",
        "job",
        "",
        "The hand-off itself, compressed, for processes on nodes that do not see the file (Ray).",
        True,
    ),
    Variable("NEMOTRON_EXEC_OUTPUTS", "job", "", "PID of the process whose end registers `run.outputs`.", True),
    Variable(
        "NEMOTRON_EXEC_RL_NAME",
        "job",
        "",
        "The artifact name that a script gave to NVIDIA's kit for RL checkpoints, for the processes that it starts.",
        True,
    ),
    Variable("NEMOTRON_EXEC_STORE", "launcher, job", "", "Root of the manifest store, decided.", True),
    Variable("NEMOTRON_EXEC_BACKEND", "launcher, job", "", "`wandb` or `manifest`, decided.", True),
    Variable(
        "NEMOTRON_EXEC_GIVEN",
        "launcher",
        "",
        "What the launcher has set for the job, names and values; a launcher inside the job takes that for absent.",
        True,
    ),
    Variable("NEMOTRON_EXEC_PYTHON", "job", "", "The launcher's own interpreter, which has fsspec.", True),
    Variable(
        "NEMOTRON_EXEC_DISABLE",
        "launcher, job",
        "0",
        "`1`, `true`, `yes`, `on`: the launcher starts the command as it is, and the injector does nothing.",
    ),
    Variable(
        "NEMOTRON_EXEC_DISABLED_PATCHES",
        "job",
        "none",
        "Patches to leave out, separated by commas: `lineage`, "
        + "".join(f"`{framework.name}`, " for framework in FRAMEWORKS)
        + "`resolvers`, `kit`, `ray`, `nemo-run`.",
    ),
    Variable(
        "NEMOTRON_EXEC_STRICT", "launcher, job", "0", "`1`: a failure of nemotron-exec in the job is fatal.", True
    ),
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
    Variable(
        "NEMOTRON_EXEC_CHECKPOINT_DIGESTS",
        "job",
        "0",
        "Record the SHA-256 of a checkpoint's files too, read at so many MB a second; 0 for not at all.",
    ),
    Variable(
        "NEMOTRON_EXEC_HOOK_BACKOFF",
        "job",
        "5",
        "Seconds before a failed hook is run again; each further pause is four times as long, at most 300.",
    ),
    Variable(
        "NEMOTRON_EXEC_HOOK_DRAIN", "job", "5", "Seconds for which the end of the process waits for hooks; 0 for none."
    ),
    Variable(
        "NEMOTRON_EXEC_WANDB_REQUIRED",
        "job",
        "run.wandb.required, else 1",
        "0: a job whose W&B does not answer trains on offline, and the run is sent later.",
    ),
    Variable(
        "NEMOTRON_EXEC_WANDB_TIMEOUT",
        "job",
        "90",
        "Seconds for which `wandb.init` waits for an answer of W&B, before it fails or goes offline.",
    ),
    Variable("NEMOTRON_EXEC_LINEAGE_TIMEOUT", "job", "5", "Seconds by which `wandb.init` may take longer."),
    Variable("NEMOTRON_EXEC_CODE_REF", "job", "git's commit", "Which code runs, for the run record."),
    Variable(
        "NEMOTRON_EXEC_CODE_DIFF",
        "job",
        "1",
        "0: the run record says that there are changes which were not committed, and not which.",
    ),
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
    Variable(
        "HF_HUB_CACHE",
        "launcher, job",
        "HF_HOME, --cache-dir",
        "Cache of the Hugging Face hub; the job gets a view of it in which a pinned id means its commit.",
        True,
    ),
    Variable(
        "HF_HUB_OFFLINE",
        "launcher, job",
        "decided",
        "Set for the job, with TRANSFORMERS_OFFLINE and HF_DATASETS_OFFLINE, where `run:` pins every id of the config.",
        True,
    ),
    Variable("HF_TOKEN", "launcher, job", "`hf auth login`", "Token of the Hugging Face hub."),
    Variable("HF_ENDPOINT", "launcher, job", "the public hub", "Address of the Hugging Face hub."),
    Variable("PYTHONPATH", "job", "", "Gets the injector's directory as its first entry.", True),
)
