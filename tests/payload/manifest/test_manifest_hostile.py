"""A manifest store that other users can write to: any content is read, or gives one clear error."""

from __future__ import annotations

import json
import os
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_exec.artifact_cli.garbage import find_garbage
from nemotron_exec.artifact_cli.inventory import take_inventory
from nemotron_exec.artifact_cli.lineage_graph import build_graph, condense, to_dot, to_json, to_mermaid, to_text
from nemotron_exec.artifact_cli.lineage_page import to_html
from nemotron_exec.artifact_cli.verify import verify
from nemotron_exec.artifacts.reference import Reference
from nemotron_exec.origin import Origin
from nemotron_exec.sitecustomize.payload.manifest import files as manifest_files
from nemotron_exec.sitecustomize.payload.manifest import names, read
from nemotron_exec.stores.manifest import artifact_of

KEYS = ("name", "version", "type", "path", "created_at", "producer", "metadata", "inputs", "used_artifacts")
OURS = ("aliases", "transient", "run_record", "checkpoint_path", "iteration", "absolute_path", "job")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
TEXTS = st.sampled_from(
    ["n:v1", "n:v2", "n:1", "/", "/x/iter_0000005", "file:///x", "file:", "s3://b/x", "a:b:c", ":v1"]
)
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(OURS) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from(KEYS + OURS), VALUES, max_size=8)
# Mostly valid values, so that the tests get past the first check.
LIKELY = st.fixed_dictionaries(
    {"path": TEXTS},
    optional={
        "type": st.text(max_size=5),
        "metadata": st.dictionaries(st.sampled_from(OURS), VALUES, max_size=4),
        "inputs": st.lists(VALUES, max_size=3),
        "used_artifacts": st.lists(VALUES, max_size=3),
        **dict.fromkeys(("created_at", "producer", "aliases", "transient", "run_record"), VALUES),
    },
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    manifests=st.lists(LIKELY | OBJECTS, min_size=1, max_size=3),
    fields=OBJECTS | VALUES,
    latest=st.sampled_from(["v1", "v2", "v9", "v", "", "latest", "v1\n"]) | st.text(max_size=5),
)
def test_any_json_is_read_or_is_one_clear_error(manifests, fields, latest):
    with tempfile.TemporaryDirectory() as root:
        for number, manifest in enumerate(manifests, 1):
            directory = os.path.join(root, "n", f"v{number}")
            os.makedirs(directory)
            for name, value in (("manifest.json", manifest), ("metadata.json", fields)):
                with open(os.path.join(directory, name), "w") as file:
                    json.dump(value, file)
        with open(os.path.join(root, "n", "latest"), "w", encoding="utf-8", errors="replace") as file:
            file.write(latest)
        files = manifest_files.LocalFiles(root)
        for asked in ("latest", "v1", "best"):
            try:
                record = read.read_version(files, "n", asked)
            except names.StoreError as e:
                assert e.found and e.remedy  # noqa: PT017, PT018
                continue
            artifact = artifact_of(record, Reference("n", "n", ("n",), asked, Origin("c.yaml")))
            assert isinstance(artifact.path, str)
            assert artifact.iteration is None or type(artifact.iteration) is int
            json.dumps(artifact.to_json())
        inventory = take_inventory(files)
        assert len(inventory.entries) == len(manifests)
        json.dumps([entry.to_json() for entry in inventory.entries])
        verify(files, inventory)
        find_garbage(files, inventory)
        graph = build_graph(inventory)
        for drawn in (graph, condense(graph)):
            assert to_text(drawn)
            assert to_mermaid(drawn)
            assert to_dot(drawn)
            assert json.loads(to_json(drawn))
            assert to_html(drawn, "x")
