"""Fixtures with a real engine, real images out of the real Dockerfile, and real containers.

`.ci/engines` installs the engine and makes the root file systems of the base images. Images are built once for a whole
test session, however many workers it has.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from filelock import FileLock

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.environ.get("NEMOTRON_EXEC_TEST_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "nemotron-exec-tests"
)
ARCH = platform.machine()

Done = subprocess.CompletedProcess

# An entrypoint like NGC's: it prints a banner, sets up the environment, and executes its arguments.
NGC_ENTRYPOINT = """#!/bin/bash
echo "== Framework container ==" >&2
export SET_BY_ENTRYPOINT=yes
if [ $# -eq 0 ]; then exec /bin/bash; fi
exec "$@"
"""

# Counts how often it runs in one interpreter.
OWN_SITECUSTOMIZE = "import builtins\nbuiltins.own_sitecustomize = getattr(builtins, 'own_sitecustomize', 0) + 1\n"

NGC_RECIPE = """
COPY --chmod=755 nvidia_entrypoint.sh /opt/nvidia/nvidia_entrypoint.sh
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh"]
"""

# The other kind of entrypoint: a program that takes the arguments.
INTERPRETER_RECIPE = """
ENTRYPOINT ["python3"]
CMD ["-c", "print('from the CMD')"]
"""

ENCUMBERED_RECIPE = """
ENV PYTHONPATH=/opt/own PYTHONNOUSERSITE=1 PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1
COPY sitecustomize.py /opt/own/sitecustomize.py
USER 4711
CMD ["python3", "-c", "print('from the CMD')"]
"""

# Base images: (the tar or the image to start from, the recipe).
BASES = {
    "debian": ("debian.tar", ""),
    "debian-python": ("debian-python.tar", ""),
    "debian-old": ("debian-old.tar", ""),
    "ngc": ("debian-python", NGC_RECIPE),
    "interpreter": ("debian-python", INTERPRETER_RECIPE),
    "encumbered": ("debian-python", ENCUMBERED_RECIPE),
    "shell-less": ("scratch", "COPY busybox /bin/busybox\n"),
}


@dataclass
class Engine:
    """podman and buildah with a storage for this test session."""

    directory: str
    podman: list[str] = field(init=False)
    buildah: list[str] = field(init=False)

    def __post_init__(self) -> None:
        store = ["--root", os.path.join(self.directory, "storage"), "--runroot", os.path.join(self.directory, "run")]
        self.podman = ["podman", *store, "--runtime", "runc"]
        self.buildah = ["buildah", *store]

    def call(self, *words: str, timeout: float = 300, check: bool = True, **more: object) -> Done:
        """One podman command, its output captured."""
        done = subprocess.run([*self.podman, *words], capture_output=True, text=True, timeout=timeout, **more)
        if check and done.returncode:
            pytest.fail(f"podman {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def run(
        self, image: str, *command: str, options: tuple[str, ...] = (), network: str = "none", **more: object
    ) -> Done:
        """`podman run --rm IMAGE COMMAND`; the exit code is the container's."""
        return self.call("run", "--rm", *self.limits(), "--network", network, *options, image, *command, check=False,
                         **more)  # fmt: skip

    @staticmethod
    def limits() -> list[str]:
        """Limits that an engine may set inside another container, for CI that itself runs in a container."""
        return ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]

    @contextlib.contextmanager
    def started(
        self, image: str, *command: str, options: tuple[str, ...] = (), network: str = "none"
    ) -> Iterator[Container]:
        """Start a container in the background, and remove it at the end."""
        name = "test-" + uuid.uuid4().hex[:12]
        self.call("run", "-d", "--name", name, *self.limits(), "--network", network, *options, image, *command)
        try:
            yield Container(self, name)
        finally:
            self.call("rm", "-f", "-t", "0", name, check=False)

    def build(self, name: str, base: str, recipe: str) -> str:
        """Make a base image: import a tar, or add a few lines to an image."""
        tag = f"localhost/{name}"
        if base.endswith(".tar"):
            path = os.path.join(CACHE, base)
            if not os.path.exists(path):
                pytest.fail(f"{path} is missing: run .ci/engines first")
            self.call("import", path, tag)
            return tag
        context = os.path.join(self.directory, "context-" + name)
        os.makedirs(context, exist_ok=True)
        with open(os.path.join(context, "nvidia_entrypoint.sh"), "w") as file:
            file.write(NGC_ENTRYPOINT)
        with open(os.path.join(context, "sitecustomize.py"), "w") as file:
            file.write(OWN_SITECUSTOMIZE)
        shutil.copy("/bin/busybox", context)
        recipe = f"FROM {base if base == 'scratch' else 'localhost/' + base}\n{recipe}"
        subprocess.run(
            [*self.buildah, "bud", "-q", "--isolation", "chroot", "-f", "-", "-t", tag, context],
            input=recipe, text=True, check=True, capture_output=True,
        )  # fmt: skip
        return tag


@dataclass
class Container:
    """A running container."""

    engine: Engine
    name: str

    def logs(self) -> str:
        """The container's output so far, both streams."""
        done = self.engine.call("logs", self.name)
        return done.stdout + done.stderr

    def wait_for(self, text: str, timeout: float = 60) -> str:
        """Waits until the container has written `text`."""
        end = time.monotonic() + timeout
        while text not in (logs := self.logs()):
            if time.monotonic() > end:
                pytest.fail(f"{text!r} did not come within {timeout} s:\n{logs}")
            time.sleep(0.1)
        return logs

    def wait(self, timeout: float = 120) -> int:
        """Wait for the end; returns the exit code."""
        return int(self.engine.call("wait", self.name, timeout=timeout).stdout.split()[0])

    def exec(self, *command: str) -> Done:
        """Run a further command inside."""
        return self.engine.call("exec", self.name, *command, check=False)


def make(target: str, **variables: str) -> Done:
    """`make TARGET NAME=VALUE…` in the repository."""
    words = [f"{name}={value}" for name, value in {"PYTHON": sys.executable, **variables}.items()]
    return subprocess.run(["make", "-C", ROOT, target, *words], capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="session")
def root() -> str:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def session_directory(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> str:
    """One directory for all workers of the session."""
    base = tmp_path_factory.getbasetemp()
    directory = os.path.join(base if worker_id == "master" else base.parent, "containers")
    os.makedirs(directory, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def once(session_directory: str) -> Callable[[str, Callable[[], str]], str]:
    """Calls a function once for all workers, and shares its answer."""

    def call(name: str, action: Callable[[], str]) -> str:
        path = os.path.join(session_directory, name.replace("/", "_") + ".json")
        with FileLock(path + ".lock"):
            if not os.path.exists(path):
                answer = action()
                with open(path, "w") as file:
                    json.dump(answer, file)
            with open(path) as file:
                return json.load(file)

    return call


@pytest.fixture(scope="session")
def engine(session_directory: str) -> Engine:
    """The engine. If it is missing, the test fails and is not skipped."""
    for name in ("podman", "buildah", "runc"):
        if not shutil.which(name):
            pytest.fail(f"{name} is not installed: run .ci/engines first")
    return Engine(session_directory)


@pytest.fixture(scope="session")
def base(engine: Engine, once: Callable[[str, Callable[[], str]], str]) -> Callable[[str], str]:
    """A base image by its name in BASES."""

    def get(name: str) -> str:
        source, recipe = BASES[name]
        if source in BASES:
            get(source)
        return once("base-" + name, lambda: engine.build(name, source, recipe))

    return get


@dataclass
class Images:
    """Calls `make image`, each image once: `image("debian", python_from="debian-python")` gives the tag."""

    engine: Engine
    base: Callable[[str], str]
    once: Callable[[str, Callable[[], str]], str]

    def __call__(self, name: str, python_from: str | None = None) -> str:
        """The base image `name` with nemotron-exec added; `python_from` names the base whose Python is copied."""
        source = self.base(name)
        lender = self.base(python_from) if python_from else source
        return self.once("image-" + name, lambda: self.made(source, source + "-exec", lender))

    def again(self, source: str, *, no_cache: bool = False) -> str:
        """Adds nemotron-exec to `source` a second time, under another tag."""
        return self.made(source, source + "-again", source, "--no-cache" if no_cache else "")

    def attempt(self, source: str, tag: str = "localhost/attempt", lender: str = "", flags: str = "") -> Done:
        """Run `make image` once; it may fail."""
        with FileLock(os.path.join(self.engine.directory, "make.lock")):
            return make("image", BASE_IMAGE=source, PYTHON_FROM=lender or source, IMAGE=tag,
                        ENGINE=" ".join(self.engine.buildah),
                        BUILD_FLAGS=f"--isolation chroot --timestamp 0 {flags}")  # fmt: skip

    def made(self, source: str, tag: str, lender: str, flags: str = "") -> str:
        """Run `make image` once; it has to succeed."""
        done = self.attempt(source, tag, lender, flags)
        if done.returncode:
            pytest.fail(done.stdout + done.stderr)
        return tag


@pytest.fixture(scope="session")
def image(engine: Engine, base: Callable[[str], str], once: Callable[[str, Callable[[], str]], str]) -> Images:
    """The image factory."""
    return Images(engine, base, once)


@pytest.fixture(scope="session")
def make_bundle(engine: Engine, once: Callable[[str, Callable[[], str]], str]) -> Callable[..., str]:
    """Calls `make bundle`, each architecture once; gives the directory."""

    def get(arch: str, **variables: str) -> str:
        return once("bundle-" + arch, lambda: build(arch, variables))

    def build(arch: str, variables: dict[str, str]) -> str:
        with FileLock(os.path.join(engine.directory, "make.lock")):
            done = make("bundle", ARCH=arch, **variables)
        if done.returncode:
            pytest.fail(done.stdout + done.stderr)
        return os.path.join(ROOT, "build", "bundle", "nemotron-exec-" + arch)

    return get


@pytest.fixture(scope="session")
def bundle(make_bundle: Callable[..., str]) -> str:
    """The directory that `make bundle` makes for this machine."""
    return make_bundle(ARCH)


@pytest.fixture(scope="session")
def arch() -> str:
    """This machine's architecture."""
    return ARCH


@pytest.fixture(scope="session")
def cache() -> str:
    """The directory of files that `.ci/engines` made."""
    return CACHE
