"""The page of a graph in a real browser: groups that open and close, zoom, keys, search; and that nothing overlaps."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from test_draw import random_graph
from test_report import HOSTILE

import machgraph as mg
from machgraph.graph import Node, dependency_graph


def written(folder, graph, title="graph"):
    path = folder / "graph.html"
    path.write_text(mg.draw.html(graph, title=title), encoding="utf-8")
    return path


def blocks(count):
    """Each block has an inner module, and adds what it was given."""
    nodes, before = [Node("stem", ("input",), ("stem",))], "stem"
    for k in range(count):
        names = [f"block{k}.norm", f"block{k}.mix.query", f"block{k}.mix.value", f"block{k}.out"]
        nodes += [Node(b, (a,), (b,)) for a, b in pairwise([before, *names])]
        nodes.append(Node(f"block{k}.add", (before, names[-1]), (f"block{k}.add",)))
        before = f"block{k}.add"
    return dependency_graph([*nodes, Node("head", (before,), ("head",))])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Opened whole: 17 machines."""
    return written(tmp_path_factory.mktemp("small"), blocks(3))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Blocks closed: 62 machines."""
    return written(tmp_path_factory.mktemp("large"), blocks(12))


OVERLAPS = """() => {
  const rect = (node) => node.querySelector(":scope > rect").getBoundingClientRect();
  const all = [...document.querySelectorAll(".part")], found = [];
  const inside = (a, b) => a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom;
  const apart = (a, b) => a.right < b.left || b.right < a.left || a.bottom < b.top || b.bottom < a.top;
  all.forEach((a, i) => all.slice(i + 1).forEach((b) => {
    if (!apart(rect(a), rect(b)) && !inside(rect(b), rect(a))) found.push(`${a.ariaLabel} | ${b.ariaLabel}`);
  }));
  for (const part of all) {
    const texts = [...part.querySelectorAll(":scope > text")].map((text) => text.getBoundingClientRect());
    const { left, right } = rect(part);
    if (texts.some((text) => text.left < left || text.right > right)) found.push(`text of ${part.ariaLabel}`);
  }
  for (const path of document.querySelectorAll(".line path")) { // no line through a box that holds nothing
    const length = path.getTotalLength(), matrix = path.getScreenCTM();
    for (let s = 2; s < length - 2; s += 7) {
      const { x, y } = path.getPointAtLength(s).matrixTransform(matrix);
      for (const part of all) {
        const { left, right, top, bottom } = rect(part);
        const within = x > left + 1 && x < right - 1 && y > top + 1 && y < bottom - 1;
        if (within && part.matches(":not(.open)")) found.push(`a line crosses ${part.ariaLabel}`);
      }
    }
  }
  return [...new Set(found)];
}"""


def part(page, name):
    """The box whose full name is this."""
    return page.locator(f'.part[aria-label^="{name},"]')


def scale(page):
    return float(re.search(r"scale\(([\d.]+)\)", page.locator("#world").get_attribute("transform"))[1])


@pytest.mark.parametrize(("width", "theme"), [(1200, "dark"), (400, "light")])
def test_it_opens_without_complaint_and_fits(visit, small, width, theme):
    page = visit(small, width=width, theme=theme)
    assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
        width,
        900,
    ]
    for control in page.locator("button, input").all():
        box = control.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    assert page.locator("#stage").bounding_box()["height"] > 500
    assert page.evaluate(OVERLAPS) == []
    sizes = page.locator(".part text").evaluate_all("all => all.map((text) => text.getBoundingClientRect().height)")
    assert min(sizes) > 9
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 384) == (theme == "light")


def test_groups_open_and_close_by_click_and_by_key(visit, large):
    page = visit(large)
    assert page.locator(".part").count() == 14
    block = part(page, "block3")
    assert block.get_attribute("aria-expanded") == "false"
    before = block.bounding_box()
    block.click()
    assert block.get_attribute("aria-expanded") == "true"
    after = block.bounding_box()
    assert (after["x"], after["y"]) == pytest.approx((before["x"], before["y"]), abs=2)
    assert after["height"] > 3 * before["height"]
    assert page.locator(".part").count() == 14 + 4
    assert page.evaluate(OVERLAPS) == []
    part(page, "block3.mix").press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    assert page.locator(".part").count() == 14 + 6
    assert page.evaluate(OVERLAPS) == []
    page.keyboard.press("Tab")
    assert "block3.mix.query" in page.evaluate("document.activeElement.ariaLabel")
    page.keyboard.press("Escape")  # the group around
    assert page.locator(".part").count() == 14 + 4
    page.keyboard.press("Space")
    assert page.locator(".part").count() == 14 + 6
    block.press("Escape")
    assert page.locator(".part").count() == 14
    block.press("Enter")
    assert page.locator(".part").count() == 14 + 4, "what was open in it is closed"


def test_more_and_less_detail(visit, large):
    page = visit(large)
    page.get_by_role("button", name="More detail").click()
    assert page.locator(".part").count() == 14 + 4 * 12
    page.get_by_role("button", name="More detail").click()
    assert page.locator(".part").count() == 14 + 6 * 12
    assert page.get_by_role("button", name="More detail").is_disabled()
    assert page.evaluate(OVERLAPS) == []
    page.get_by_role("button", name="Less").click()
    page.get_by_role("button", name="Less").click()
    assert page.locator(".part").count() == 14
    assert page.get_by_role("button", name="Less").is_disabled()


def test_it_zooms_about_the_pointer_and_pans(visit, small):
    page = visit(small)
    first, box = scale(page), part(page, "block0.norm").bounding_box()
    page.mouse.move(box["x"], box["y"])
    page.mouse.wheel(0, -400)
    page.wait_for_function(
        "(old) => !document.querySelector('#world').getAttribute('transform').includes(old)", arg=f"{first:.4f}"
    )
    assert scale(page) > 1.5 * first
    after = part(page, "block0.norm").bounding_box()
    assert (after["x"], after["y"]) == pytest.approx((box["x"], box["y"]), abs=2)
    stage = page.locator("#stage").bounding_box()
    page.mouse.move(stage["x"] + 30, stage["y"] + 30)
    page.mouse.down()
    page.mouse.move(stage["x"] + 90, stage["y"] + 50)
    page.mouse.up()
    moved = part(page, "block0.norm").bounding_box()
    assert (moved["x"] - after["x"], moved["y"] - after["y"]) == pytest.approx((60, 20), abs=2)
    assert page.locator(".part").count() == 17 + 6, "dragging opens and closes nothing"
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    assert part(page, "block0.norm").bounding_box()["x"] == pytest.approx(moved["x"] - 60, abs=1)
    before = scale(page)
    page.keyboard.press("+")
    assert scale(page) > before
    page.keyboard.press("0")
    world = page.locator("#world").bounding_box()
    assert world["x"] >= stage["x"]
    assert world["y"] + world["height"] <= stage["y"] + stage["height"]
    page.get_by_role("button", name="Zoom out").click()
    mine = scale(page)
    assert mine < first
    page.set_viewport_size({"width": 1200, "height": 500})  # as when a phone shows its keyboard
    page.evaluate("new Promise(requestAnimationFrame)")
    assert scale(page) == mine


def test_two_fingers_zoom(visit, small):
    page = visit(small, width=400, touch=True)
    before = scale(page)
    page.evaluate("""() => {
      const stage = document.querySelector("#stage");
      const { left, top } = stage.getBoundingClientRect();
      const touch = (kind, id, x, y) => stage.dispatchEvent(new PointerEvent(kind, {
        pointerId: id, pointerType: "touch", clientX: left + x, clientY: top + y, bubbles: true }));
      stage.setPointerCapture = () => {}; // of no real finger
      touch("pointerdown", 1, 100, 100);
      touch("pointerdown", 2, 200, 100);
      touch("pointermove", 2, 300, 100);
      touch("pointerup", 1, 100, 100);
      touch("pointerup", 2, 300, 100);
    }""")
    assert scale(page) == pytest.approx(2 * before, rel=0.01)


def test_pointing_tells_reads_writes_and_level(visit, small):
    page = visit(small)
    page.get_by_role("button", name="Fit").click()
    part(page, "block1.add").hover()
    said = page.locator("#readout").inner_text()
    assert said.startswith("block1.add, level 11: reads block0.add, block1.out; writes block1.add; ")
    assert "hears block0.add, block1.out" in said
    assert "feeds block2.norm, block2.add" in said
    assert "Of 17 components, 7 are not final before it, 6 after." in said
    assert page.locator(".line.hears").count() == 4  # out of block 0, into block 1, on to the sum; and from block1.out
    assert page.locator(".line.feeds").count() == 4
    page.locator("#find").focus()
    page.mouse.move(5, 5)
    assert page.locator(".line.hears").count() == 0
    assert "Point at a box" in page.locator("#readout").inner_text()


def test_bands_are_the_levels_of_the_machines(visit, small):
    page = visit(small)
    bands = page.locator(".bands").first.locator("text")
    labels = bands.evaluate_all("all => all.map((text) => text.textContent)")
    assert labels == ["1", "2–6", "7–11", "12–16", "17"]


def test_search_opens_what_is_around(visit, large):
    page = visit(large, width=400)
    page.locator("#find").fill("7 QUERY")
    assert page.locator("#found li").all_inner_texts() == ["block7.mix.query"]
    page.keyboard.press("Enter")
    assert "block7.mix.query" in page.evaluate("document.activeElement.ariaLabel")
    assert page.locator("#found").is_hidden()
    box, stage = part(page, "block7.mix.query").bounding_box(), page.locator("#stage").bounding_box()
    assert stage["x"] <= box["x"] < box["x"] + box["width"] <= stage["x"] + stage["width"]
    assert stage["y"] <= box["y"] < box["y"] + box["height"] <= stage["y"] + stage["height"]
    page.locator("#find").fill("block")
    assert page.locator("#found li").count() == 9
    assert page.locator("#found li").last.inner_text() == "and 76 more"
    page.locator("#find").press("ArrowDown")
    assert page.locator("#found li[aria-selected=true]").inner_text() == "block1"
    page.locator("#find").fill("nothing of the kind")
    assert page.locator("#found").inner_text() == "No machine has this name."


def test_three_hundred_machines_without_modules(visit, tmp_path):
    page = visit(written(tmp_path, random_graph(300)))
    assert page.locator(".part").count() < 40
    assert page.evaluate(OVERLAPS) == []
    page.locator(".part.group").first.click()
    assert page.evaluate(OVERLAPS) == []


def test_any_modules_open_without_overlaps(visit, tmp_path):
    """Modules that are entered from many others, and again later."""
    rng, nodes, names = np.random.default_rng(0), [], []
    for i in range(50):
        reads = sorted({names[max(0, i - 1 - int(k))] for k in rng.integers(0, 12, 2)}) if i else ["x"]
        names.append(f"{'abcd'[i * 4 // 50]}.{rng.integers(0, 3)}.m{i}")
        nodes.append(Node(names[-1], tuple(reads), (names[-1],)))
    page = visit(written(tmp_path, dependency_graph(nodes)))
    while page.get_by_role("button", name="More detail").is_enabled():
        page.get_by_role("button", name="More detail").click()
    assert page.locator(".part:not(.group)").count() == 50
    assert page.evaluate(OVERLAPS) == []


def test_names_are_text_and_a_recurrence_says_its_lags(visit, tmp_path):
    graph = dependency_graph([Node(HOSTILE, ("x",), ("y",)), Node("g", ("y",), ("z",))])
    page = visit(written(tmp_path, graph, title=HOSTILE))
    assert page.title() == HOSTILE
    assert page.locator(".part").first.get_attribute("aria-label").startswith(HOSTILE)
    page = visit(written(tmp_path, mg.RecurrentMachine((2, 3, 1), lags=1)))
    labels = page.locator(".part").evaluate_all("all => all.map((part) => part.ariaLabel)")
    assert any("(lag 1)" in label for label in labels)
    assert "σ₀" in page.locator(".part text").evaluate_all("all => all.map((text) => text.textContent)")


def test_the_page_holds_the_graph():
    graph = blocks(3)
    text = mg.draw.html(graph)
    told = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])
    names = [part["name"] for part in told["parts"]]
    assert {(names[a], names[b]) for a, b in told["edges"]} == set(graph.edges)
    assert set(names) == {"", *graph, *(f"block{k}{inner}" for k in range(3) for inner in ("", ".mix"))}
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    with pytest.raises(TypeError, match="give an architecture"):
        mg.draw.html("graph")
