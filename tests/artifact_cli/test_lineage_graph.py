"""lineage_graph.py and lineage_page.py: the lineage in every format, for odd and for large stores."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import time

import pytest

from nemotron_exec.artifact_cli.inventory import take_inventory
from nemotron_exec.artifact_cli.lineage_graph import (
    Graph,
    Node,
    beyond_mermaid,
    build_graph,
    condense,
    lineage_of,
    to_dot,
    to_json,
    to_mermaid,
    to_text,
)
from nemotron_exec.artifact_cli.lineage_page import layers, to_html
from nemotron_exec.sitecustomize.payload.manifest import files, register


def add(root, name, used=(), **more):
    more.setdefault("type", "model")
    more.setdefault("metadata", {})
    more.setdefault("path", str(root))
    return register.register(root, name, used_artifacts=used, **more)


def graph_of(root):
    return build_graph(take_inventory(files.LocalFiles(root)))


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.fixture
def root(tmp_path):
    return str(tmp_path)


@pytest.fixture
def pipeline(root):
    """A lineage from raw data to a final model, like that of the recipes."""
    add(root, "blend", type="dataset", inputs=["hf://nvidia/raw"])
    add(root, "pretrain", ["blend:v1"], metadata={"iteration": 500})
    add(root, "sft", ["pretrain:v1", "team/nemotron/sft-data:v3"], metadata={"iteration": 20})
    add(root, "rl", ["sft:1", "art://blend:v1"])
    add(root, "unrelated")
    return root


def test_the_graph_goes_from_raw_data_to_the_final_model(pipeline):
    graph = graph_of(pipeline)
    assert graph.parents["rl:v1"] == ("sft:v1", "blend:v1")
    assert graph.parents["blend:v1"] == ("hf://nvidia/raw",)
    assert graph.nodes["team/nemotron/sft-data:v3"].kind == "external"
    assert set(lineage_of(graph, "rl:v1").nodes) == set(graph.nodes) - {"unrelated:v1"}
    assert set(lineage_of(graph, "pretrain:v1").nodes) == {
        "hf://nvidia/raw",
        "blend:v1",
        "pretrain:v1",
        "sft:v1",
        "rl:v1",
    }


def test_a_node_says_which_run_made_it(root, tmp_path):
    record = tmp_path / "run.json"
    record.write_text(
        json.dumps({"command": ["torchrun", "t.py"], "code": {"commit": "abc", "dirty": True}, "cwd": "/w"})
    )
    add(root, "m", producer="slurm-42.0", metadata={"job": "slurm-42.0", "run_record": str(record)})
    made_by = graph_of(root).nodes["m:v1"].made_by
    assert made_by["producer"] == "slurm-42.0"
    assert (made_by["command"], made_by["code"], made_by["uncommitted changes"]) == ("torchrun t.py", "abc", "yes")
    record.write_text("[" * 100_000)
    assert graph_of(root).nodes["m:v1"].made_by["run record"] == str(record)
    record.unlink()
    os.mkfifo(record)
    assert "command" not in graph_of(root).nodes["m:v1"].made_by


def test_many_checkpoints_of_one_run_become_one_box(root):
    add(root, "data", type="dataset")
    for step in range(20):
        add(root, "pretrain", ["data:v1"], metadata={"iteration": step}, aliases=[f"iter_{step:07}"])
    add(root, "sft", ["pretrain:v7"])
    small = condense(graph_of(root))
    assert sorted(node.label or node.id for node in small.nodes.values()) == [
        "data:v1",
        "pretrain:v1 … v19",
        "pretrain:v20",
        "pretrain:v7",
        "sft:v1",
    ]
    assert "pretrain:v3" in condense(graph_of(root), "pretrain:v3").nodes


def test_text_begins_with_the_version_that_was_asked_for(pipeline):
    lines = to_text(lineage_of(graph_of(pipeline), "sft:v1"), "sft:v1").splitlines()
    assert [line.strip(" └├─│").split("  ")[0] for line in lines] == [
        *("sft:v1", "pretrain:v1", "blend:v1", "hf://nvidia/raw", "team/nemotron/sft-data:v3"),
        *("rl:v1", "sft:v1", "blend:v1"),
    ]
    assert lines[-1].endswith("(see above)")


def test_cycles_and_versions_made_from_themselves_end(root):
    add(root, "a", ["b:v1", "a:v1"])
    add(root, "b", ["a:v1"])
    graph = graph_of(root)
    assert len(to_text(graph).splitlines()) == 3
    assert sorted(key for layer in layers(graph) for key in layer) == ["a:v1", "b:v1"]
    assert data_of(to_html(graph, "x"))["edges"] == [["b:v1", "a:v1"], ["a:v1", "b:v1"]]


def test_a_chain_of_a_thousand_needs_no_stack():
    nodes = {f"m:v{number}": Node(f"m:v{number}") for number in range(1, 1001)}
    graph = Graph(nodes, {f"m:v{number}": (f"m:v{number - 1}",) for number in range(2, 1001)})
    assert len(to_text(graph).splitlines()) == 1000
    assert layers(graph) == [[f"m:v{number}"] for number in range(1, 1001)]


ODD = 'x"]; <b>&amp;\\n</script><!--`#quot; \x1b[31m'


def test_odd_texts_stay_texts_in_every_format(root):
    add(root, "m", [ODD], path=f"/x/{ODD}", metadata={"note": ODD})
    graph = graph_of(root)
    for text in (to_text(graph), to_mermaid(graph), to_dot(graph)):
        assert "\x1b" not in text
    mermaid = to_mermaid(graph)
    assert "<b>" not in mermaid
    assert all(line.count('"') in (0, 2) for line in mermaid.splitlines())
    assert all(len(re.findall(r'(?<!\\)(?:\\\\)*"', line)) % 2 == 0 for line in to_dot(graph).splitlines())
    page = to_html(graph, ODD)
    assert page.count("</script>") == 2
    assert page.count("<!--") == 0
    node = next(node for node in data_of(page)["nodes"] if node["id"] == "m:v1")
    assert node["metadata"]["note"] == ODD
    assert json.loads(to_json(graph))["edges"] == [[ODD, "m:v1"]]


def test_the_page_names_no_other_host_and_allows_no_other_script(pipeline):
    page = to_html(graph_of(pipeline), "Lineage")
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)\s*=|@import|url\(|fetch\(|XMLHttpRequest|@(?:HASH|DATA|TITLE)@""", page)
    # A browser does not load namespaces, and only a person follows the links to the hub.
    code = page.replace("http://www.w3.org/2000/svg", "").replace('"https:"', "").partition('id="data">')
    assert "http" not in code[0].replace("http-equiv", "")
    assert "http" not in code[2].partition("</script>")[2]


def test_what_a_version_was_made_from_stands_left_of_it_and_inputs_beside_their_first_use(pipeline):
    graph = graph_of(pipeline)
    column = {key: index for index, layer in enumerate(layers(graph)) for key in layer}
    assert set(column) == set(graph.nodes)
    assert all(column[parent] < column[child] for child, parents in graph.parents.items() for parent in parents)
    assert column["team/nemotron/sft-data:v3"] == column["sft:v1"] - 1


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """A thousand versions: data, long runs, their fine-tunings."""
    root = str(tmp_path_factory.mktemp("thousand") / "store")
    data = str(tmp_path_factory.mktemp("data"))
    os.makedirs(root)
    count = 0
    for blend in range(1, 6):
        _write(root, data, "blend", blend, [f"hf://nvidia/raw-{blend}"], [])
        count += 1
    for step in range(1, 801):
        _write(root, data, "pretrain", step, [], [f"blend:v{step % 5 + 1}"], iteration=step * 100)
        count += 1
    for tuning in range(1, 196):
        _write(root, data, f"sft-{tuning % 13}", tuning // 13 + 1, [], [f"pretrain:v{tuning * 4}", "blend:v2"])
        count += 1
    assert count == 1000
    return root


def _write(root, data, name, number, inputs, used, **metadata):
    directory = os.path.join(root, name, f"v{number}")
    os.makedirs(directory)
    manifest = {
        "name": name,
        "version": number,
        "type": "model",
        "path": data,
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    manifest.update(producer="local", metadata=metadata, inputs=inputs, used_artifacts=used)
    with open(os.path.join(directory, "manifest.json"), "w") as file:
        json.dump(manifest, file, indent=2)
    with open(os.path.join(root, name, "latest"), "w") as file:
        file.write(f"v{number}")


def test_a_thousand_versions_are_drawn_in_every_format(thousand):
    began = time.monotonic()
    graph = graph_of(thousand)
    assert len(graph.nodes) == 1005
    page = to_html(graph, "Lineage")
    assert len(data_of(page)["nodes"]) == 1005
    assert len(page) < 1_500_000
    assert sum(map(len, layers(graph))) == 1005
    small = condense(graph)
    assert len(small.nodes) < 450
    assert not beyond_mermaid(lineage_of(small, "sft-0:v15"), to_mermaid(lineage_of(small, "sft-0:v15")))
    assert beyond_mermaid(graph, to_mermaid(graph))
    assert to_text(small)
    assert to_dot(graph).count(" -> ") == sum(map(len, graph.parents.values()))
    assert time.monotonic() - began < 60


@pytest.mark.ci
def test_graphviz_and_a_browser_take_what_is_written(thousand, root):
    add(root, "m", [ODD], path=f"/x/{ODD}")
    for graph in (graph_of(root), condense(graph_of(thousand))):
        out = subprocess.run(["dot", "-Tsvg"], input=to_dot(graph), capture_output=True, text=True, check=False)
        assert out.returncode == 0, out.stderr
        assert out.stdout.count('class="node"') == len(graph.nodes)


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,900"):
        options.add_argument(argument)
    # Only files can be loaded: requests to the network fail.
    options.add_argument("--proxy-server=http://127.0.0.1:1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = shutil.which("chromium") or ""
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def open_page(browser, path, graph, title="Lineage"):
    path.write_text(to_html(graph, title))
    browser.get(path.as_uri())
    assert browser.title == title
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.ci
def test_in_a_browser_a_click_on_a_box_shows_what_it_is_and_lights_up_its_lineage(browser, pipeline, tmp_path):
    open_page(browser, tmp_path / "page.html", graph_of(pipeline))

    def box(name):
        return browser.find_element("css selector", f'.node[data-id="{name}"]')

    box("sft:v1").click()
    details = browser.find_element("id", "details")
    for text in ("sft:v1", "20", pipeline, "latest", "pretrain:v1", "team/nemotron/sft-data:v3", "rl:v1", "local"):
        assert text in details.text
    assert "selected" in box("sft:v1").get_attribute("class")
    for name, on in (("blend:v1", True), ("rl:v1", True), ("unrelated:v1", False)):
        assert ("on" in box(name).get_attribute("class").split()) is on
    details.find_element("xpath", ".//button[text()='pretrain:v1']").click()
    assert details.find_element("tag name", "h2").text == "pretrain:v1"
    assert "500" in details.text
    search = browser.find_element("id", "search")
    search.send_keys("unrel")
    assert browser.find_element("id", "count").text.startswith("1 of ")
    search.send_keys("\n")
    assert details.find_element("tag name", "h2").text == "unrelated:v1"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    requested = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert requested == []


@pytest.mark.ci
def test_in_a_browser_nothing_that_the_store_says_is_run(browser, root, tmp_path):
    odd = "<img src=x onerror=alert(1)></script><script>document.title='owned'</script>"
    add(root, "m", [odd], path=f"/x/{odd}", metadata={odd: odd})
    open_page(browser, tmp_path / "page.html", graph_of(root), "Lineage of </title><script>alert(1)</script>")
    browser.find_element("css selector", '.node[data-id="m:v1"]').click()
    assert odd in browser.find_element("id", "details").text
    assert browser.title != "owned"
    assert browser.find_elements("tag name", "img") == []


@pytest.mark.ci
def test_in_a_browser_a_thousand_versions_can_be_searched_and_clicked(browser, thousand, tmp_path):
    open_page(browser, tmp_path / "page.html", graph_of(thousand))
    assert len(browser.find_elements("css selector", ".node")) == 1005
    search = browser.find_element("id", "search")
    search.send_keys("pretrain:v432\n")
    assert browser.find_element("css selector", "#details h2").text == "pretrain:v432"
    # The page shows it with its own lineage, large enough to read.
    boxes = browser.find_elements("css selector", ".node")
    assert sorted(box.get_attribute("data-id") for box in boxes if box.is_displayed()) == sorted(
        lineage_of(graph_of(thousand), "pretrain:v432").nodes
    )
    box = browser.find_element("css selector", '.node[data-id="blend:v3"]')
    assert box.rect["height"] > 20
    box.click()
    assert browser.find_element("css selector", "#details h2").text == "blend:v3"
    assert "Used by (160)" in browser.find_element("id", "details").text
    browser.find_element("id", "all").click()
    assert all(box.is_displayed() for box in boxes)


@pytest.mark.ci
def test_in_a_browser_the_end_of_a_chain_that_is_too_long_to_be_seen_whole_is_shown(browser, root, tmp_path):
    for number in range(200):
        add(root, "m", [f"m:v{number}"] if number else [], path=f"/x/{number}")
    open_page(browser, tmp_path / "page.html", graph_of(root))

    def seen(name):
        box = browser.find_element("css selector", f'.node[data-id="{name}"]')
        rect = box.rect  # also defined for a hidden box
        return box.is_displayed() and 0 <= rect["x"] < 1400 and 0 <= rect["y"] < 900 and rect["height"] > 15

    assert seen("m:v200")
    assert not seen("m:v1")
    browser.find_element("id", "search").send_keys("m:v1\n")
    assert seen("m:v1")


@pytest.mark.ci
@pytest.mark.parametrize("repository", ["org/model", "datasets/org/na-me.2"])
def test_in_a_browser_a_click_on_the_link_of_a_model_goes_to_its_commit_on_the_hub(browser, root, tmp_path, repository):
    commit = "0123456789" * 4
    name = f"hf://{repository}@{commit}"
    add(root, "sft", [name])
    open_page(browser, tmp_path / "page.html", graph_of(root))
    browser.find_element("css selector", f'.node[data-id="{name}"]').click()
    link = browser.find_element("link text", "on the Hugging Face hub")
    with contextlib.suppress(Exception):  # the browser cannot load the page without a network
        link.click()
    assert browser.current_url == f"https://huggingface.co/{repository}/tree/{commit}"


def test_versions_that_nothing_was_made_from_fold_and_the_page_knows_them(root):
    add(root, "blend", type="dataset")
    for _ in range(4):
        add(root, "m", ["blend:v1"])
    data = data_of(to_html(graph_of(root), "Lineage"))
    assert data["folds"] == [["m:v1", "m:v2", "m:v3"]]  # the fourth is `latest`


@pytest.mark.ci
def test_in_a_browser_a_thousand_versions_are_one_box_a_name_at_first_and_filters_show_more(
    browser, thousand, tmp_path
):
    open_page(browser, tmp_path / "page.html", graph_of(thousand))

    def shown():
        return browser.execute_script(
            "return [...document.querySelectorAll('.node')].filter((box) => box.style.display !== 'none')"
            ".map((box) => box.querySelector('text').textContent)"
        )

    assert "pretrain · 800 versions" in shown()
    assert len(shown()) == 20
    box = browser.find_element("css selector", '.node[data-id="pretrain:v800"]')
    assert box.rect["height"] > 20  # large enough to read
    browser.find_element("css selector", "#fold option[value=all]").click()
    assert len(shown()) == 1005
    browser.find_element("id", "latest").click()
    assert len(shown()) == 15
    browser.find_element("id", "latest").click()
    # The search shows its results during typing.
    browser.find_element("id", "search").send_keys("pretrain:v43 ")
    assert "pretrain:v430" in shown()
    rect = browser.find_element("css selector", '.node[data-id="pretrain:v430"]').rect
    assert 0 <= rect["x"] < 1400
    assert 0 <= rect["y"] < 900
    assert rect["height"] > 15


@pytest.mark.ci
def test_in_a_browser_two_versions_are_compared_and_a_run_is_linked(browser, root, tmp_path):
    add(root, "m", metadata={"loss": 2.5, "lr": 1}, path="/a")
    add(root, "m", metadata={"loss": 1.5, "lr": 1}, path="/b", extra={"wandb_run": "ab12"})
    graph = graph_of(root)
    graph.nodes["m:v2"] = dataclasses.replace(graph.nodes["m:v2"], wandb="team/nemotron/m:v2")
    path = tmp_path / "page.html"
    path.write_text(to_html(graph, "Lineage", wandb="https://wandb.example"))
    browser.get(path.as_uri())
    browser.find_element("css selector", '.node[data-id="m:v2"]').click()
    link = browser.find_element("link text", "the run in W&B")
    assert link.get_attribute("href") == "https://wandb.example/team/nemotron/runs/ab12"
    assert len(browser.find_elements("css selector", "button.copy")) == 2
    browser.find_element("css selector", "#compare option[value='m:v1']").click()
    table = browser.find_element("id", "comparison").text
    assert "loss 1.5 2.5" in table
    assert "lr" not in table


@pytest.mark.ci
def test_in_a_browser_as_wide_as_a_phone_the_graph_lies_above_the_details(browser, pipeline, tmp_path):
    size = browser.get_window_size()
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        open_page(browser, tmp_path / "page.html", graph_of(pipeline))
        browser.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))",
                               browser.find_element("css selector", '.node[data-id="sft:v1"]'))  # fmt: skip
        graph, details = (browser.find_element("id", name).rect for name in ("graph", "details"))
        assert graph["width"] >= 380
        assert graph["height"] > 300
        assert details["y"] >= graph["y"] + graph["height"]
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.set_window_size(size["width"], size["height"])


@pytest.mark.ci
def test_in_a_browser_no_edge_runs_through_a_box(browser, pipeline, tmp_path):
    open_page(browser, tmp_path / "page.html", graph_of(pipeline))
    through = browser.execute_script("""
        const boxes = [...document.querySelectorAll('.node')].map((box) => {
            const [x, y] = box.getAttribute('transform').match(/-?[\\d.]+/g).map(Number);
            return [x + 2, y + 2, x + 218, y + 44, box.dataset.id];
        });
        const found = [];
        for (const path of document.querySelectorAll('.edge')) {
            if (path.style.display === 'none') continue;
            for (let at = 2; at < path.getTotalLength() - 2; at += 2) {
                const {x, y} = path.getPointAtLength(at);
                for (const [left, top, right, bottom, id] of boxes) {
                    if (x > left && x < right && y > top && y < bottom) found.push(id);
                }
            }
        }
        return found;""")
    assert through == []
