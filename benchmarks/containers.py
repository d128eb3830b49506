"""Measures the size of an image and a bundle, and the time that their entrypoint adds to `podman run`.

Needs the engine and the root file system that `.ci/engines` provides; without them, one line says so and nothing is
measured.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile

from benchmarks.pairs import Case, compare
from benchmarks.row import Row, emit

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.environ.get("NEMOTRON_EXEC_TEST_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "nemotron-exec-tests"
)
PAIRS = 20
# An engine inside another container may not raise these limits.
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "none"]


def main() -> None:
    """Measure a base image, the same image with nemotron-exec, and the base image with the bundle mounted."""
    rootfs = os.path.join(CACHE, "debian-python.tar")
    missing = [name for name in ("podman", "buildah", "runc") if not shutil.which(name)]
    if missing or not os.path.exists(rootfs):
        sys.stderr.write(f"containers: not measured, {missing or rootfs} is not here: see .ci/engines\n")
        return
    directory = tempfile.mkdtemp(prefix="nemotron-exec-bench-")
    store = ["--root", f"{directory}/storage", "--runroot", f"{directory}/run"]
    podman = [shutil.which("podman") or "podman", *store, "--runtime", "runc"]
    try:
        measure(podman, " ".join(["buildah", *store]), rootfs)
    finally:
        subprocess.run([*podman, "rmi", "-a", "-f"], capture_output=True, check=False)
        shutil.rmtree(directory, ignore_errors=True)


def measure(podman: list[str], buildah: str, rootfs: str) -> None:
    """Build the image and the bundle, and emit their sizes and times."""
    base, added = "localhost/base", "localhost/added"
    subprocess.run([*podman, "import", rootfs, base], check=True, capture_output=True)
    make("image", f"BASE_IMAGE={base}", f"IMAGE={added}", f"ENGINE={buildah}", "BUILD_FLAGS=--isolation chroot")
    make("bundle")
    bundle = os.path.join(ROOT, "build", "bundle", "nemotron-exec-" + platform.machine())
    before, after = (image_size(podman, image) for image in (base, added))
    emit(Row("image, added to Debian with Python 3.11", "MB", after - before, note="most of it is the W&B client"))
    emit(Row("bundle for five Pythons", "MB", directory_size(bundle)))

    # Do not call pairs.be_left_alone: a process of a real-time class may not enter a container's cgroup.
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    start = [*podman, "run", "--rm", *LIMITS]
    mounted = ["-v", f"{bundle}:/bundle:ro", "--entrypoint", "/bundle/bin/nemotron-exec"]
    results = compare(
        Case("baseline", [*start, base, "true"], environ),
        [
            Case("podman run IMAGE true", [*start, added, "true"], environ),
            Case("podman run with the bundle mounted", [*start, *mounted, base, "true"], environ),
        ],
        pairs=PAIRS,
    )
    for name, result in results.items():
        emit(Row.of(name, result, against="podman run of the base image", bar="", met=None))


def make(*words: str) -> None:
    """Run one make target of the repository."""
    subprocess.run(["make", "-C", ROOT, *words, f"PYTHON={sys.executable}"], check=True, stdout=sys.stderr)


def image_size(podman: list[str], image: str) -> float:
    """The size of all layers in megabytes."""
    done = subprocess.run([*podman, "image", "inspect", image], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)[0]["Size"] / 1e6


def directory_size(path: str) -> float:
    """The size of all files in megabytes."""
    return (
        sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names) / 1e6
    )


if __name__ == "__main__":
    main()
