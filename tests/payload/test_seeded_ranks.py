"""wandb 0.23 takes client ids of artifacts from the global `random`. Two ranks with one seed must get two ids."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nemotron_exec import __version__
from nemotron_exec.environment import injector_directory

pytestmark = [pytest.mark.ci, pytest.mark.timeout(600)]

DRAW = """
import random, wandb
assert wandb.__version__ == {version!r}, wandb.__version__
run = wandb.init(project="nemotron", entity="team")
random.seed(42)
artifact = wandb.Artifact("checkpoint", type="model")
print(artifact._client_id, artifact._sequence_client_id, random.random())
run.finish()
"""


@pytest.fixture(scope="module", params=["0.23.1"])
def client(request, tmp_path_factory):
    """A wandb of that version, to use in place of the installed one: the directory, and the version."""
    directory = tmp_path_factory.mktemp("client")
    words = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    subprocess.run([*words, "--target", str(directory), f"wandb=={request.param}"], check=True)
    return directory, request.param


def draw(client, wandb_environ, **environ):
    directory, version = client
    path = [*([injector_directory()] if environ else []), str(directory)]
    done = subprocess.run(
        [sys.executable, "-c", DRAW.format(version=version)],
        env={**wandb_environ, "PYTHONPATH": ":".join(path), **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


def test_two_ranks_with_one_seed_draw_different_ids_and_their_own_numbers_stay(client, wandb_environ):
    job = {"NEMOTRON_EXEC_ACTIVE": __version__}
    one, other = draw(client, wandb_environ, **job), draw(client, wandb_environ, **job)
    assert one[0] != other[0]
    assert one[1] != other[1]
    # The job's own random numbers still follow from its seed.
    assert one[2] == other[2]


def test_without_nemotron_exec_this_client_does_draw_one_id(client, wandb_environ):
    # If this fails, the other test no longer proves anything.
    one, other = draw(client, wandb_environ), draw(client, wandb_environ)
    assert one[:2] == other[:2]
