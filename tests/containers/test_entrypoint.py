"""Commands that people type after `docker run IMAGE`, with the expected results."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.ci, pytest.mark.timeout(600)]

INJECTED = (
    "import os, sys; print(bool(os.environ.get('NEMOTRON_EXEC_ACTIVE')), any('sitecustomize' in p for p in sys.path))"
)


def test_a_command_runs_with_the_injector_in_its_python(engine, image):
    done = engine.run(image("debian-python"), "python3", "-c", INJECTED)
    assert (done.stdout, done.returncode) == ("True True\n", 0)


def test_a_shell_gets_its_words_and_the_injector(engine, image):
    done = engine.run(image("debian-python"), "bash", "-c", f'python3 -c "{INJECTED}"; exit 7')
    assert (done.stdout, done.returncode) == ("True True\n", 7)


def test_an_interactive_shell_reads_its_standard_input(engine, image):
    done = engine.run(image("debian-python"), "bash", options=("-i",), input="echo from the terminal\n")
    assert done.stdout == "from the terminal\n"


def test_words_reach_the_command_byte_for_byte(engine, image):
    words = ("", "--", "-x", "a b", "$HOME", "*", "ü", "new\nline", "--version")
    done = engine.run(image("debian-python"), "python3", "-c", "import sys; print(sys.argv[1:])", *words)
    assert done.stdout == f"{list(words)}\n"


def test_no_command_and_no_cmd_is_wrong_usage_and_says_so(engine, image):
    done = engine.run(image("debian-python"))
    assert done.returncode == 2
    assert "nemotron-exec" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_command_is_127_and_a_file_that_is_none_126(engine, image):
    assert engine.run(image("debian-python"), "no-such-program").returncode == 127
    assert engine.run(image("debian-python"), "/etc/passwd").returncode == 126


def test_the_base_images_entrypoint_runs_once_and_its_environment_reaches_the_command(engine, image):
    done = engine.run(image("ngc"), "python3", "-c", f"{INJECTED}; print(os.environ['SET_BY_ENTRYPOINT'])")
    assert done.stdout == "True True\nyes\n"
    assert done.stderr.count("== Framework container ==") == 1


def test_the_base_images_entrypoint_still_decides_what_no_command_means(engine, image):
    done = engine.run(image("ngc"), options=("-i",), input="echo $SET_BY_ENTRYPOINT $0\n")
    assert done.stdout == "yes /bin/bash\n"


def test_an_entrypoint_that_is_a_program_still_takes_the_arguments(engine, image):
    done = engine.run(image("interpreter"), "-c", INJECTED)
    assert done.stdout == "True True\n"


def test_the_base_images_cmd_is_kept(engine, image):
    assert engine.run(image("interpreter")).stdout == "from the CMD\n"
    assert engine.run(image("encumbered")).stdout == "from the CMD\n"


def test_an_image_made_of_our_image_has_one_entrypoint(engine, image, base, monkeypatch, tmp_path):
    import json

    first = image("ngc")
    from_ours = engine.call("image", "inspect", first).stdout
    entrypoint = json.loads(from_ours)[0]["Config"]["Entrypoint"]
    assert entrypoint[-1] == "/opt/nvidia/nvidia_entrypoint.sh"
    assert entrypoint[0] == "/opt/nemotron-exec/bin/tini"
    again = image.again(first)
    assert json.loads(engine.call("image", "inspect", again).stdout)[0]["Config"]["Entrypoint"] == entrypoint


def test_the_prefix_works_where_a_cluster_passes_over_the_entrypoint(engine, image):
    # pyxis ignores it by default: srun --container-image=… nemotron-exec python3 …
    done = engine.run(image("ngc"), "nemotron-exec", "python3", "-c", INJECTED, options=("--entrypoint", "env"))
    assert done.stdout == "True True\n"
    assert "Framework container" not in done.stderr


def test_the_prefix_inside_an_image_that_has_the_entrypoint_injects_once(engine, image):
    code = "import os; print(os.environ['PYTHONPATH'].split(':'))"
    done = engine.run(image("debian-python"), "nemotron-exec", "python3", "-c", code)
    assert done.stdout.count("sitecustomize") == 1, done.stdout + done.stderr
