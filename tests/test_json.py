"""The programs' output for scripts fits docs/schemas/, and every such document has a schema."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from nemotron_exec import schemas

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "docs/schemas"


def strict(schema):
    """The schema without further fields, so that an undocumented field fails the test."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema["additionalProperties"] = False
        for inner in schema.values():
            strict(inner)
    elif isinstance(schema, list):
        for inner in schema:
            strict(inner)
    return schema


def check(document, name):
    assert document["schema"] == name
    schema = json.loads((SCHEMAS / f"{name.replace('/', '-')}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, strict(schema), cls=jsonschema.Draft202012Validator)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A store with an input, a model made from it, a version without its data, and a finished job."""
    place = tmp_path_factory.mktemp("job")
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("NEMOTRON", "NEMO_"))},
        "NEMOTRON_EXEC_STORE": str(place / "store"),
        "NEMOTRON_EXEC_STATE_DIR": str(place / "state"),
        "NEMOTRON_EXEC_JOB_ID": "job-7",
    }

    def run(program, *words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", program, *words], cwd=place, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    for name in ("data", "model", "lost"):
        (place / name).mkdir()
    (place / "cfg.yaml").write_text("run: {data: 'blend:latest'}\npath: ${art:data,path}\n")
    run("nemotron_exec.artifact_cli", "add", "blend", "data", "--meta", "pack_size=4")
    run("nemotron_exec.artifact_cli", "add", "model", "model", "--input", "blend:v1", "--meta", "iteration=3")
    run("nemotron_exec.artifact_cli", "add", "lost", "lost", "--input", "s3://bucket/x")
    run("nemotron_exec.artifact_cli", "add", "lost", "lost")
    (place / "lost").rmdir()
    run("nemotron_exec", "cat", "cfg.yaml")
    return run


ARTIFACT = {
    schemas.LS: ("ls", 0),
    schemas.SHOW: ("show model", 0),
    schemas.ADD: ("add more data", 0),
    schemas.VERIFY: ("verify", 1),
    schemas.GC: ("gc --unmounted", 0),
    schemas.DIFF: ("diff blend model", 0),
    schemas.GRAPH: ("graph", 0),
    schemas.FLUSH: ("flush", 0),
    schemas.HOOKS: ("hooks", 0),
}
LAUNCHER = {
    schemas.DRY_RUN: "--log-format json --dry-run cat cfg.yaml",
    schemas.RESOLVE: "--resolve-only cat cfg.yaml",
    schemas.JOBS: "--status --json",
    schemas.JOB: "--status --json job-7",
}


@pytest.mark.parametrize("name", ARTIFACT)
def test_a_document_of_nemotron_artifact_is_as_its_schema_says(job, name):
    words, code = ARTIFACT[name]
    document = json.loads(job("nemotron_exec.artifact_cli", *words.split(), "--json", code=code))
    check(document, name)
    lists = [value for value in document.values() if isinstance(value, list)]
    assert name in (schemas.FLUSH, schemas.HOOKS) or not lists or any(lists)  # an empty list proves nothing


@pytest.mark.parametrize("name", LAUNCHER)
def test_a_document_of_nemotron_exec_is_as_its_schema_says(job, name):
    check(json.loads(job("nemotron_exec", *LAUNCHER[name].split())), name)


def test_each_line_of_the_doctor_is_as_its_schema_says(job, bare_path, monkeypatch):
    monkeypatch.setenv("PATH", str(bare_path))
    lines = job("nemotron_exec", "--log-format", "json", "--doctor", "cat", "cfg.yaml").splitlines()
    assert len(lines) > 5
    for line in lines:
        check(json.loads(line), schemas.DOCTOR)


def test_every_schema_has_a_file_and_is_written_by_a_test():
    names = {getattr(schemas, name) for name in schemas.__all__}
    assert {path.stem for path in SCHEMAS.glob("*.json")} == {name.replace("/", "-") for name in names}
    assert {*ARTIFACT, *LAUNCHER, schemas.DOCTOR} == names


def test_every_command_that_writes_json_has_a_schema():
    from nemotron_exec.artifact_cli.main import cli

    commands = list(cli.list_commands(None))
    with_json = {name for name in commands if "as_json" in {param.name for param in cli.get_command(None, name).params}}
    assert with_json == {name.partition("/")[0] for name in ARTIFACT}
    source = "".join(path.read_text() for path in (ROOT / "entrypoint/nemotron_exec/artifact_cli").glob("*.py"))
    assert set(re.findall(r"print_json\(\s*(?!schema:)(?:schemas\.)?(\w+)", source)) | {"GRAPH"} == {
        name.partition("/")[0].upper() for name in ARTIFACT
    }


def test_the_page_of_the_schemas_is_what_they_say():
    done = subprocess.run([sys.executable, "docs/tools/schemas.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run `make reference`"
