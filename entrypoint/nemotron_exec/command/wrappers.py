"""Programs in front of the command that start it in another directory, on another machine or as another user."""

from __future__ import annotations

import os

from nemotron_exec.command import shell_text
from nemotron_exec.frozen import dataclass

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Surroundings", "surroundings"]

# For each program, its options that name the working directory of the command.
_CHANGES_DIRECTORY = {
    "env": ("-C", "--chdir"),
    "uv": ("--directory",),
    "uvx": ("--directory",),
    "srun": ("-D", "--chdir", "--container-workdir"),
    "sbatch": ("-D", "--chdir"),
    "salloc": ("-D", "--chdir"),
    "mpirun": ("-wdir", "--wdir", "-wd", "--wd"),
    "mpiexec": ("-wdir", "--wdir", "-wd", "--wd"),
    "mpiexec.hydra": ("-wdir", "--wdir"),
    "orterun": ("-wdir", "--wdir", "-wd", "--wd"),
    "prterun": ("-wdir", "--wdir", "-wd", "--wd"),
    "prun": ("-wdir", "--wdir", "-wd", "--wd"),
    "jsrun": ("-h", "--chdir"),
    "flux": ("--cwd",),
    "sudo": ("-D", "--chdir"),
    "systemd-run": ("--working-directory",),
    "poetry": ("-C", "--directory"),
    "conda": ("--cwd",),
    "mamba": ("--cwd",),
    "micromamba": ("--cwd",),
    "make": ("-C", "--directory"),
    "gmake": ("-C", "--directory"),
    "just": ("-d", "--working-directory"),
    "bwrap": ("--chdir",),
    "unshare": ("--wd",),
    "nsenter": ("--wd",),
    "start-stop-daemon": ("-d", "--chdir"),
    "chpst": ("-C",),
    "parallel": ("--wd", "--workdir"),
    "bsub": ("-cwd",),
    "qsub": ("-wd",),
    "qrsh": ("-wd",),
    "apptainer": ("--pwd", "--cwd"),
    "singularity": ("--pwd", "--cwd"),
    "docker": ("-w", "--workdir"),
    "podman": ("-w", "--workdir"),
    "podman-hpc": ("-w", "--workdir"),
    "nerdctl": ("-w", "--workdir"),
    "shifter": ("-w", "--workdir"),
    "ch-run": ("-c", "--cd"),
    "systemd-nspawn": ("--chdir",),
    "ray": ("--working-dir",),
    "sky": ("--workdir",),
}
# Programs whose command sees another file system or another machine. A program with words counts only before one of
# them, because environments and hosts may have the name of the program, too.
_ELSEWHERE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("docker", "podman", "podman-hpc", "nerdctl", "kubectl", "oc", "machinectl", "systemd-nspawn"), ()),
    **dict.fromkeys(
        ("ssh", "mosh", "pdsh", "clush", "chroot", "shifter", "ch-run", "lxc-attach", "sarus", "udocker"), ()
    ),
    **dict.fromkeys(("apptainer", "singularity"), ("exec", "run", "shell", "instance")),
    "buildah": ("run",),
    "enroot": ("start", "exec"),
    "lxc": ("exec",),
    "distrobox": ("enter",),
    "toolbox": ("run",),
    "ray": ("job", "exec", "submit"),
    "sky": ("exec", "launch", "jobs"),
    "dstack": ("apply",),
    "gcloud": ("compute", "alpha", "beta"),
}
_CONTAINER = ("--container-image", "--container-name")  # pyxis
# For each program, its options that name the user; None where the first word without a dash is the user.
_CHANGES_USER: dict[str, tuple[str, ...] | None] = {
    "gosu": None,
    "su-exec": None,
    "setuidgid": None,
    "s6-setuidgid": None,
    "setpriv": ("--reuid", "--ruid", "--euid"),
    "chpst": ("-u",),
    "sudo": ("-u", "--user"),
    "doas": ("-u",),
    "runuser": ("-u", "--user"),
    "start-stop-daemon": ("-c", "--chuid"),
    "systemd-run": ("--uid",),
    "capsh": ("--user",),
}
# Options of su and runuser that take the next word.
_SU_VALUED = (
    "-s",
    "--shell",
    "-c",
    "--command",
    "--session-command",
    "-g",
    "--group",
    "-G",
    "--supp-group",
    "-w",
    "-T",
)
_LOGIN = ("-", "-l", "--login", "-i")


@dataclass(frozen=True)
class Surroundings:
    """Where the command runs, as far as its wrappers show.

    Attributes:
        directory: Its working directory, relative to the launcher's; "" where that is the same.
        elsewhere: The wrapper that may start it where the same paths are other files; "" where there is none.
        user: The user to whom a wrapper changes, by name or number; "" where none does.
        changed_by: The wrapper that changes the user.
    """

    directory: str = ""
    elsewhere: str = ""
    user: str = ""
    changed_by: str = ""


def surroundings(words: Sequence[str]) -> Surroundings:
    """Read the wrappers of a command.

    Args:
        words: The command's words, up to its program.
    """
    directory = elsewhere = user = changed_by = ""
    for index, word in enumerate(words):
        name = os.path.basename(word)
        rest = words[index + 1 :]
        if name in _CHANGES_DIRECTORY:
            for value in _values(rest, _CHANGES_DIRECTORY[name]):
                if "$" in value or "%" in value:  # Slurm replaces its patterns, and a shell expands variables
                    elsewhere = name
                directory = os.path.join(directory, value)
        if _is_elsewhere(name, rest):
            elsewhere = name
        # A script behind a shell (`bash run.sh`) was read together with the shell.
        is_read = name.endswith(".sh") and any(os.path.basename(one) in shell_text.SHELLS for one in words[:index])
        if not is_read and (inner := shell_text.directory_of_arguments(words[index:])) is not None:
            directory = os.path.join(directory, inner)
            elsewhere = name if inner == "" else elsewhere
        if name == "su" or (name in ("runuser", "sudo", "doas") and any(one in rest for one in _LOGIN)):
            elsewhere = name if any(one in rest for one in _LOGIN) else elsewhere
        found = _user(name, rest)
        if found:
            user, changed_by = found, name
    return Surroundings(directory, elsewhere, user, changed_by)


def _is_elsewhere(name: str, rest: Sequence[str]) -> bool:
    if name in _ELSEWHERE:
        before = _ELSEWHERE[name]
        return not before or any(word in before for word in rest)
    return name == "srun" and any(word.partition("=")[0] in _CONTAINER for word in rest)


def _user(name: str, rest: Sequence[str]) -> str:
    if name in ("su", "runuser"):
        named = next(iter(_values(rest, ("-u", "--user"))), "") if name == "runuser" else ""
        return named or next(iter(_plain(rest, _SU_VALUED)), "") or "root"
    if name not in _CHANGES_USER:
        return ""
    options = _CHANGES_USER[name]
    if options is None:
        found = next((word for word in rest if not word.startswith("-")), "")
    else:
        found = next(iter(_values(rest, options)), "")
    return found.partition(":")[0]


def _plain(words: Sequence[str], valued: Sequence[str]) -> list[str]:
    """The words that are neither options nor values of the options `valued`."""
    return [
        word
        for index, word in enumerate(words)
        if not word.startswith("-") and not (index and words[index - 1] in valued)
    ]


def _values(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """The values of some options, in every form: `-u X`, `-uX`, `--user X`, `--user=X`."""
    found: list[str] = []
    for index, word in enumerate(words):
        if word == "--":
            break
        for option in options:
            if word == option:
                found += words[index + 1 : index + 2]
            elif word.startswith(f"{option}="):
                found.append(word[len(option) + 1 :])
            elif len(option) == 2 and word.startswith(option) and not word.startswith("--"):
                found.append(word[2:])
    return found
