"""Gathers the files for an image or a bundle, so that building either needs no network.

    python docker/gather.py --arch x86_64 --out build/context/x86_64

fills the directory with a complete build context, which is also the input of docker/bundle.py. `wheels/` has
nemotron-exec's wheel, and those of requirements/image.lock for every Python of the launcher, checked against their
hashes. `pythons.json` has the wheels for each Python. Beside them lie `tini` and copies of Dockerfile and install.py.

It runs under any Python that has pip. Unchanged files are not fetched again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.request

from pip._vendor.packaging.requirements import Requirement

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOCK = os.path.join(ROOT, "requirements", "image.lock")

# All Pythons of the launcher. The job's own Python may be older: the injector needs no wheels.
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")

# The newest glibc that a wheel may require. NGC's images have a newer one; for an older one install.py stops.
GLIBC = (2, 28)

TINI_URL = "https://github.com/krallin/tini/releases/download/v0.19.0/"
# Each architecture's file and its digest, from the release's .sha256sum files.
TINI = {
    "x86_64": ("tini-static-amd64", "c5b0666b4cb676901f90dfcb37106783c5fe2077b04590973b885950611b30ee"),
    "aarch64": ("tini-static-arm64", "eae1d3aa50c48fb23b8cbdf4e369d0910dfc538566bfd09df89a774aa84a48b9"),
}
# The tini without libc of Debian's and Fedora's packages, used if it is for the wanted architecture.
TINI_STATIC = ("/usr/bin/tini-static",)


def read_lock(path: str) -> list[tuple[Requirement, str]]:
    """The lock's entries: the requirement, and the text (with hashes) that pip reads."""
    with open(path, encoding="utf-8") as file:
        text = file.read().replace("\\\n", " ")
    entries = []
    for line in text.splitlines():
        words = line.split("#")[0].split("--hash=")
        if words[0].strip():
            entries.append((Requirement(words[0].strip()), line))
    return entries


def applies(requirement: Requirement, python: str, arch: str) -> bool:
    """Whether the entry is for `python` on Linux. pip would evaluate it for the interpreter that runs pip."""
    environment = {
        "python_version": python,
        "python_full_version": python + ".0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": arch,
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    return requirement.marker is None or requirement.marker.evaluate(environment)


def platforms(arch: str) -> list[str]:
    """Pip's names of the platforms whose wheels run under glibc GLIBC and later."""
    names = [f"manylinux_2_{minor}_{arch}" for minor in range(GLIBC[1], 4, -1)]
    return [*names, f"manylinux2014_{arch}", f"manylinux2010_{arch}", f"manylinux1_{arch}"]


def pip(*words: str, **more: object) -> None:
    """Runs this interpreter's pip; its output goes to stderr."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    subprocess.run(command, check=True, stdout=sys.stderr, **more)  # type: ignore[call-overload]


def fetch_wheels(arch: str, python: str, directory: str, extra: list[str]) -> list[str]:
    """Downloads the wheels for `python` on `arch` into `directory`; returns the names of the files."""
    target = ["--python-version", python, "--implementation", "cp", "--abi", "cp" + python.replace(".", "")]
    target += ["--abi", "abi3", "--abi", "none", "--only-binary", ":all:"]
    for name in platforms(arch):
        target += ["--platform", name]
    with tempfile.TemporaryDirectory() as scratch:
        chosen = os.path.join(scratch, "requirements.txt")
        with open(chosen, "w", encoding="utf-8") as file:
            for requirement, text in read_lock(LOCK):
                if applies(requirement, python, arch):
                    file.write(text.split(";")[0].split("--hash")[0].strip() + " ")
                    file.write(" ".join("--hash=" + part.strip() for part in text.split("--hash=")[1:]) + "\n")
        got = os.path.join(scratch, "wheels")
        pip("download", "-qq", "--require-hashes", "--no-deps", "-r", chosen, "-d", got, *target)
        if extra:
            # The person who builds has asked for these, so the lock does not pin them.
            pip("download", "-qq", "-d", got, "-c", without_hashes(chosen), *extra, *target)
        names = sorted(os.listdir(got))
        for name in names:
            os.replace(os.path.join(got, name), os.path.join(directory, name))
    return names


def without_hashes(path: str) -> str:
    """A constraints file out of a requirements file: pip refuses hashes in the former."""
    with open(path, encoding="utf-8") as file:
        lines = [line.split("--hash")[0].strip() for line in file]
    with open(path + ".constraints", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path + ".constraints"


def build_our_wheel(directory: str) -> str:
    """Builds the package's own wheel out of the work tree; the same tree and epoch give the same bytes."""
    environment = {"SOURCE_DATE_EPOCH": epoch(), **os.environ}
    with tempfile.TemporaryDirectory() as scratch:
        pip("wheel", "-qq", "--no-deps", "-w", scratch, ROOT, env=environment)
        (name,) = os.listdir(scratch)
        shutil.move(os.path.join(scratch, name), os.path.join(directory, name))
    return name


def digest_of_sources() -> str:
    """Digest of all sources of nemotron-exec's wheel."""
    digest = hashlib.sha256(epoch().encode())
    for top in ("entrypoint", "sitecustomize", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        path = os.path.join(ROOT, top)
        found = [path] if os.path.isfile(path) else [os.path.join(d, n) for d, _, names in os.walk(path) for n in names]
        for name in sorted(name for name in found if not name.endswith(".pyc") and os.path.isfile(name)):
            digest.update(os.path.relpath(name, ROOT).encode() + b"\0")
            with open(name, "rb") as file:
                digest.update(file.read())
    return digest.hexdigest()


def epoch() -> str:
    """SOURCE_DATE_EPOCH, else the time of the last commit, else 0: the date of all files of the result."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return os.environ["SOURCE_DATE_EPOCH"]
    answer = subprocess.run(["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, text=True)
    return answer.stdout.strip() or "0"


def elf_machine(path: str) -> str | None:
    """The architecture that an ELF file is for, as `uname -m` says it; None for anything else."""
    with open(path, "rb") as file:
        header = file.read(20)
    if header[:4] != b"\x7fELF":
        return None
    return {62: "x86_64", 183: "aarch64"}.get(int.from_bytes(header[18:20], "little"), "other")


def fetch_tini(arch: str, given: str | None, out: str) -> None:
    """Writes a static tini for `arch` to `out`: the given one, this machine's, or the pinned release."""
    candidates = [given] if given else [path for path in TINI_STATIC if arch == platform.machine()]
    for path in candidates:
        if os.path.exists(path):
            if elf_machine(path) != arch:
                sys.exit(f"gather.py: {path} is not a program for {arch}: it is for {elf_machine(path)}. Set TINI=.")
            shutil.copyfile(path, out)
            os.chmod(out, 0o755)
            return
    if given:
        sys.exit(f"gather.py: TINI={given} does not exist.")
    name, digest = TINI[arch]
    try:
        with urllib.request.urlopen(TINI_URL + name, timeout=60) as answer:
            data = answer.read()
    except OSError as error:
        sys.exit(f"gather.py: tini for {arch}: {TINI_URL + name}: {error}. Install tini, or set TINI= to a static one.")
    if hashlib.sha256(data).hexdigest() != digest:
        sys.exit(f"gather.py: {TINI_URL + name} has not the digest that is pinned here. Set TINI= to a file you trust.")
    with open(out, "wb") as file:
        file.write(data)
    os.chmod(out, 0o755)


def main() -> None:
    """Reads the command line and fills the directory."""
    parser = argparse.ArgumentParser(description="Gather what an image or a bundle is made of.")
    parser.add_argument("--arch", choices=sorted(TINI), default=platform.machine())
    parser.add_argument("--out", required=True, help="directory to fill")
    parser.add_argument("--tini", default=os.environ.get("TINI") or None, help="a static tini to take")
    parser.add_argument("--extra", action="append", default=[], help="a package more, such as s3fs for a store on S3")
    options = parser.parse_args()

    wheels = os.path.join(options.out, "wheels")
    index = os.path.join(options.out, "pythons.json")
    with open(LOCK, "rb") as file:
        stamp = hashlib.sha256(file.read() + repr((options.extra, PYTHONS, GLIBC)).encode()).hexdigest()
    kept: dict[str, object] = {}
    if os.path.exists(index):
        with open(index, encoding="utf-8") as file:
            kept = json.load(file)
    if kept.get("stamp") != stamp:
        shutil.rmtree(options.out, ignore_errors=True)
        os.makedirs(wheels)
        kept = {"stamp": stamp, "arch": options.arch}
        kept["pythons"] = {python: fetch_wheels(options.arch, python, wheels, options.extra) for python in PYTHONS}
    sources = digest_of_sources()
    if kept.get("sources") != sources:
        for name in os.listdir(wheels):
            if name.startswith("nemotron_exec-"):
                os.remove(os.path.join(wheels, name))
        kept["ours"] = build_our_wheel(wheels)
        kept["sources"] = sources
    kept["epoch"] = int(epoch())
    fetch_tini(options.arch, options.tini, os.path.join(options.out, "tini"))
    for name in ("install.py", "Dockerfile"):
        shutil.copyfile(os.path.join(ROOT, "docker", name), os.path.join(options.out, name))
    with open(index, "w", encoding="utf-8") as file:
        json.dump(kept, file, indent=1)


if __name__ == "__main__":
    main()
