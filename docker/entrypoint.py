"""Prints docker/Dockerfile with the base image's own ENTRYPOINT and CMD carried over.

    python docker/entrypoint.py --engine docker --base nvcr.io/nvidia/nemo:25.11.nemotron_3_nano

A Dockerfile cannot read either of them, and setting ENTRYPOINT clears the inherited CMD. nemotron-exec's entrypoint
comes first. The base's entrypoint begins the command that it wraps, so it runs as before, once: a script that sets up
the environment and executes its arguments (NGC's), or a program that takes them (`python3`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

PREFIX = "/opt/nemotron-exec/bin"
OURS = [f"{PREFIX}/tini", "-g", "--", f"{PREFIX}/nemotron-exec", "--"]


def inspect(engine: list[str], base: str) -> dict[str, object]:
    """The configuration of the image `base`, pulled if the engine does not have it.

    Raises:
        SystemExit: The engine does not find the image.
    """
    name = os.path.basename(engine[0])
    command = (
        [*engine, "inspect", "--type", "image", base] if name == "buildah" else [*engine, "image", "inspect", base]
    )
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        subprocess.run([*engine, "pull", base], stdout=sys.stderr)
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"entrypoint.py: BASE_IMAGE={base}: {done.stderr.strip()}. Pull or build it first.")
    answer = json.loads(done.stdout)
    return (answer["OCIv1"]["config"] if name == "buildah" else answer[0].get("Config")) or {}


def words(config: dict[str, object], key: str) -> list[str]:
    """A field of the configuration as a list of words; empty if the field is absent."""
    value = config.get(key) or []
    return [str(word) for word in value] if isinstance(value, list) else ["/bin/sh", "-c", str(value)]


def chained(entrypoint: list[str]) -> list[str]:
    """nemotron-exec's entrypoint, then the base's; unchanged if the base has nemotron-exec's already."""
    return entrypoint if entrypoint[: len(OURS)] == OURS else OURS + entrypoint


def dockerfile(template: str, config: dict[str, object]) -> str:
    """The template with the ENTRYPOINT line replaced and the CMD added."""
    lines = []
    for line in template.splitlines():
        if line.startswith("ENTRYPOINT "):
            line = "ENTRYPOINT " + json.dumps(chained(words(config, "Entrypoint")))
            if words(config, "Cmd"):
                line += "\nCMD " + json.dumps(words(config, "Cmd"))
        lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Reads the command line and prints."""
    parser = argparse.ArgumentParser(description="Print docker/Dockerfile for one base image.")
    parser.add_argument("--engine", required=True, help="docker, podman or buildah, with its own options")
    parser.add_argument("--base", required=True)
    options = parser.parse_args()
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "Dockerfile"), encoding="utf-8") as file:
        template = file.read()
    sys.stdout.write(dockerfile(template, inspect(options.engine.split(), options.base)))


if __name__ == "__main__":
    main()
