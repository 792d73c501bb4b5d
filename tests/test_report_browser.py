"""A report in a real browser: what is clicked, both themes, both widths, and that no request leaves the page."""

import math
import re
from dataclasses import replace

import pytest
from test_report import HOSTILE, made_up

import machgraph as mg

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉", "_")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "report.html"
    path.write_text(made_up(200).page(), encoding="utf-8")
    return path


def with_shortcuts(folder):
    """The architecture of a network, and a page about it."""
    machine = mg.DenseMachine((12, 4, 4, 3), shortcuts=[[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0]])
    path = folder / "report.html"
    path.write_text(replace(made_up(30), machine=machine).page(), encoding="utf-8")
    return machine.architecture, path


OVERLAPS = """() => {
  const boxes = [...document.querySelectorAll(".diagram text, .stairs text, .tick, .mask th")]
    .filter((node) => node.textContent.trim() && node.getClientRects().length)
    .map((node) => [node, node.getBoundingClientRect(), node.closest("svg, .plot, table")])
    .map(([node, box, frame]) => ({ said: node.textContent, box, frame }));
  const found = [];
  boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b) => {
    const wide = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
    const high = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
    const least = a.frame.matches(".plot, table") ? 1 : 4; // the box of a text in an SVG is as high as its line
    if (a.frame === b.frame && wide > 1 && high > least) found.push(`${a.said} | ${b.said}`);
  }));
  for (const rect of document.querySelectorAll(".diagram .box rect")) {
    const frame = rect.getBoundingClientRect();
    for (const text of rect.parentNode.querySelectorAll("text")) {
      const box = text.getBoundingClientRect();
      if (box.width > frame.width) found.push(`${text.textContent} is wider than its box`);
    }
  }
  return found;
}"""


def overlaps(page):
    """Labels that lie on each other, or that are wider than their box, in what is shown."""
    return page.evaluate(OVERLAPS)


def column(page, key):
    index = page.locator("#table thead th").evaluate_all(
        "(all, key) => all.findIndex(th => th.dataset.key === key)", key
    )
    return page.locator(f"#table tbody tr td:nth-child({index + 1})").all_inner_texts()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_it_opens_without_complaint_and_fits(visit, report, width, theme):
    page = visit(report, width=width, theme=theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".diagram:visible").count() == 2
    assert page.locator(".cost:visible").count() == 1
    assert overlaps(page) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 384) == (theme == "light")


def test_the_theme_follows_the_system_until_the_button_is_pressed(visit, report):
    page = visit(report)
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(colour)
    assert dark != light
    page.get_by_role("button", name="Switch to light colours").press("Enter")
    assert page.evaluate(colour) == light
    page.get_by_role("button", name="Switch to dark colours").click()
    page.emulate_media(color_scheme="light")
    assert page.evaluate(colour) == dark


def test_a_header_sorts_both_ways_and_says_so(visit, report):
    page = visit(report)
    header = page.locator('#table th[data-key="parameters"]')
    assert page.locator("#table th[aria-sort]").get_attribute("data-key") == "loss"
    for direction in ("ascending", "descending"):
        header.get_by_role("button").press("Enter")
        assert header.get_attribute("aria-sort") == direction
        assert page.locator("#table th[aria-sort]").count() == 1
        numbers = [int(text.replace(",", "")) for text in column(page, "parameters")]
        assert len(numbers) > 20
        assert numbers == sorted(numbers, reverse=direction == "descending")


def test_trials_without_a_loss_come_last_either_way(visit, report):
    page = visit(report)
    page.locator("#filter").fill("diverged")
    dashes = int(page.locator("#count").inner_text().split()[0])
    assert set(column(page, "loss")) == {"–"}
    page.locator("#filter").fill("")
    for _ in range(2):
        while page.locator("#more").is_visible():
            page.locator("#more").press("Enter")
        losses = column(page, "loss")
        assert len(losses) == 200
        assert all(text == "–" for text in losses[-dashes:])
        page.locator('#table th[data-key="loss"] button').click()


def test_the_filters_leave_what_was_asked_for(visit, report):
    page = visit(report)
    page.get_by_label("Filter").fill("relu shortcuts")
    networks = column(page, "network")
    assert networks
    assert all("relu" in text and "shortcuts" in text for text in networks)
    page.get_by_label("Status").select_option("2")
    assert {text.strip() for text in column(page, "status")} == {"halved"}
    shown = page.locator("#table tbody tr").count()
    assert page.locator("#count").inner_text() == f"{shown} of 200 trials"
    page.get_by_label("Filter").fill("no such network")
    assert page.locator("#table tbody tr").count() == 0


@pytest.mark.parametrize("how", ["hover", "focus"])
@pytest.mark.parametrize("graph", [0, 1])
def test_a_box_shows_what_it_hears_and_feeds(visit, report, how, graph):
    page = visit(report)
    diagram = page.locator(".diagram:visible").nth(graph)
    box = diagram.locator(".box").nth(1)
    name = box.get_attribute("data-box")
    getattr(box, how)()
    for kind, end in (("hears", "to"), ("feeds", "from")):
        marked = diagram.locator(f".line.{kind}")
        assert marked.count() == diagram.locator(f'.line[data-{end}="{name}"]').count() > 0
        assert set(marked.evaluate_all(f"all => all.map(line => line.dataset.{end})")) == {name}
    readout = page.locator(".graph .readout").nth(graph)
    assert readout.inner_text() == box.get_attribute("aria-label")
    page.mouse.move(0, 0)
    box.blur()
    assert diagram.locator(".hears, .feeds, .near, .self").count() == 0


# --- the resolvent, step by step -------------------------------------------------------------------------------------


def state(page):
    """The step that is shown, the machine of it, and how many are done and ahead, in the picture and in the list."""
    diagram = page.locator(".player .diagram:visible")
    return {
        "step": int(page.locator("#at").inner_text().split()[0]),
        "self": diagram.locator(".box.self").evaluate_all("all => all.map(box => box.dataset.box)"),
        "done": diagram.locator(".box.done").count(),
        "ahead": diagram.locator(".box.ahead").count(),
        "read": set(diagram.locator(".line.hears").evaluate_all("all => all.map(line => line.dataset.from)")),
        "written": set(diagram.locator(".line.feeds").evaluate_all("all => all.map(line => line.dataset.to)")),
        "now": page.locator(".stairs .component.now text:not(.sign)").all_text_contents(),
        "known": page.locator("#known").inner_text(),
        "unknown": page.locator("#unknown").inner_text(),
    }


@pytest.mark.parametrize("width", [1200, 400])
def test_each_step_lights_what_is_read_and_written_and_tells_what_is_known(visit, tmp_path, width):
    architecture, path = with_shortcuts(tmp_path)
    order, graph, spelled = architecture.order, architecture.graph, lambda name: name.translate(SUBSCRIPTS)
    page = visit(path, width=width)
    assert page.locator(".player .box.ahead").count() == 0, "before the first step the whole graph stands there"
    assert page.locator("#back").is_disabled()
    for k, name in enumerate(order, start=1):
        page.locator("#forward").click()
        page.mouse.move(0, 0)
        found = state(page)
        assert (found["step"], found["self"]) == (k, [name])
        assert (found["done"], found["ahead"]) == (k, len(order) - k)
        assert found["read"] == set(graph.predecessors(name))
        assert found["written"] == set(graph.successors(name))
        assert found["now"] == [spelled(component) for component in graph.nodes[name]["writes"]]
        later = [component for other in order[k:] for component in graph.nodes[other]["writes"]]
        assert found["unknown"] == (", ".join(map(spelled, later)) or "nothing")
        assert len(found["known"].split(", ")) == len(architecture.components) - len(later)
        readout = page.locator(".player .readout").inner_text()
        assert readout.startswith(f"Step {k} of {len(order)}, level ")
        assert all(spelled(component) in readout for component in graph.nodes[name]["reads"])
    assert readout.endswith("= 0: the network is solved.")
    assert page.locator("#forward").is_disabled()


def test_steps_go_by_keys_by_the_slider_and_back(visit, report):
    page = visit(report)
    last = int(page.locator("#step").get_attribute("max"))
    region, slider = page.get_by_role("region", name="Machines of the network"), page.get_by_label("Step", exact=True)
    for key, step in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", last), ("ArrowRight", last),
                      ("Home", 0), ("ArrowLeft", 0)):  # fmt: skip
        region.press(key)
        assert state(page)["step"] == step
    slider.press("ArrowRight")
    assert state(page)["step"] == 1
    assert slider.get_attribute("aria-valuetext") == f"1 of {last}, σ₀"
    page.get_by_role("button", name="One step back").click()
    assert state(page)["step"] == 0


def test_play_runs_to_the_end_and_pauses(visit, report):
    page = visit(report)
    page.clock.install(time=0)
    page.clock.pause_at(1000)  # or time goes on by itself too
    page.locator("#play").click()
    assert (state(page)["step"], page.locator("#play").inner_text()) == (1, "Pause")
    page.clock.run_for(2000)
    assert state(page)["step"] == 3
    page.locator("#play").click()
    page.clock.run_for(5000)
    assert (state(page)["step"], page.locator("#play").inner_text()) == (3, "Play")
    page.locator("#play").click()
    page.clock.run_for(60_000)
    assert state(page)["step"] == int(page.locator("#step").get_attribute("max"))
    assert page.locator("#play").inner_text() == "Play"
    page.locator("#play").click()
    assert state(page)["step"] == 0, "from the end it begins again"


def test_a_machine_that_is_pointed_at_is_told_and_then_the_step_again(visit, report):
    page = visit(report)
    page.locator("#forward").click()
    page.locator("#forward").click()
    before = page.locator(".player .readout").inner_text()
    box = page.locator(".player .diagram:visible .box").last
    box.hover()
    assert page.locator(".player .readout").inner_text() == box.get_attribute("aria-label")
    page.mouse.move(0, 0)
    assert page.locator(".player .readout").inner_text() == before
    assert state(page)["step"] == 2


def test_without_a_script_graphs_and_charts_stand_there(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator(".diagram:visible").count() == 2
    assert page.locator(".cost:visible").count() == 2
    assert page.locator(".stairs").is_visible()
    assert not page.locator(".controls").is_visible()
    assert not page.locator("#against").is_visible()
    context.close()


# --- charts ----------------------------------------------------------------------------------------------------------


def test_loss_is_shown_against_what_is_chosen(visit, report):
    page = visit(report)
    page.get_by_role("combobox", name="Against").select_option(label="FLOPs a sample (smaller is better)")
    shown = page.locator(".cost:visible")
    assert shown.get_attribute("id") == "cost-1"
    plot, readout = shown.locator(".plot"), shown.locator(".readout")
    assert re.match(r"Of \d+ networks, \d+ on the front", readout.inner_text())
    costs = []
    for _ in range(4):
        plot.press("ArrowRight")
        costs.append(int(re.search(r"flops ([\d,]+)", readout.inner_text())[1].replace(",", "")))
    assert costs == sorted(costs)


def test_the_history_tells_of_the_trial_under_the_pointer_and_by_keys(visit, report):
    page = visit(report)
    plot, readout = page.locator("#trial-chart .plot"), page.locator("#trial-chart .readout")
    plot.hover()
    assert re.match(r"Trial \d+, \w+: loss .*accuracy", readout.inner_text())
    page.mouse.move(0, 0)
    plot.press("PageDown")
    first = int(re.match(r"Trial (\d+)", readout.inner_text())[1])
    plot.press("ArrowLeft")
    assert readout.inner_text().startswith(f"Trial {first - 1},")


def test_a_name_in_the_list_lifts_its_learning_curve(visit, report):
    page = visit(report)
    pick = page.locator(".picks li").nth(2)
    pick.focus()
    assert page.locator(".curve.picked").get_attribute("data-curve") == pick.get_attribute("data-curve")
    pick.blur()
    assert page.locator(".curve.picked").count() == 0


def test_names_that_users_chose_run_nothing(visit, tmp_path):
    path = tmp_path / "report.html"
    run = made_up(name=HOSTILE, word=HOSTILE)
    path.write_text(replace(run, rows=[replace(row, name=row.name + HOSTILE) for row in run.rows]).page())
    page = visit(path, width=400)
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert any("<script>" in text for text in column(page, "network"))
    assert page.evaluate("document.querySelectorAll('img').length") == 0

    assert overlaps(page) == []


def test_two_thousand_trials_sort_and_filter(visit, tmp_path):
    few = made_up(40)
    path = tmp_path / "report.html"
    records = [replace(few.records[i % 40], number=i) for i in range(2000)]
    path.write_text(replace(few, records=records).page())
    page = visit(path)
    assert page.locator("#count").inner_text() == "2,000 of 2,000 trials"
    before = page.locator("#table tbody tr").count()
    assert before < 500
    page.locator(".tall-list").last.evaluate("box => box.scrollTop = box.scrollHeight")
    page.locator("#table tbody tr").nth(before).wait_for(state="attached")  # wait_for_function is against its policy
    header = page.locator('#table th[data-key="number"] button')
    header.click()
    header.click()
    assert column(page, "number")[:3] == ["1,999", "1,998", "1,997"]
    page.get_by_label("Filter").fill("1234")
    assert column(page, "number") == ["1,234"]
    assert page.locator("#table tbody .glyph").count() == 1


@pytest.mark.parametrize(
    ("machine", "width"),
    [
        ("recurrent", 400), ("sixty blocks", 1200), ("sixty blocks", 400), ("pooled", 1200), ("pooled", 400),
        ("no network", 400), ("one trial", 400),
    ],
)  # fmt: skip
def test_extremes_fit_and_no_label_lies_on_another(visit, tmp_path, machine, width):
    run = made_up(40)
    path = tmp_path / "report.html"
    if machine == "no network":
        lost = [replace(r, status="failed", loss=math.nan, score=math.nan, duplicate_of=None) for r in run.records]
        run = replace(run, records=lost, rows=[], machine=None)
    elif machine == "one trial":
        run = replace(run, records=run.records[:1], rows=run.rows[:1])
    else:
        run = replace(run, machine=EXTREMES[machine]())
    path.write_text(run.page(), encoding="utf-8")
    page = visit(path, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert overlaps(page) == []
    if run.machine is None:
        return
    page.get_by_role("region", name="Machines of the network").press("End")
    page.get_by_role("region", name="Machines of the network").press("ArrowLeft")
    seen = page.evaluate("""() => {
      const shown = [...document.querySelectorAll(".player .box.self")].find((one) => one.getClientRects().length);
      const at = shown.getBoundingClientRect(), frame = shown.closest(".scroll").getBoundingClientRect();
      return [at.top - frame.top, frame.bottom - at.bottom, at.left - frame.left, frame.right - at.right];
    }""")
    assert min(seen) >= 0, "the machine of the step is in view"


EXTREMES = {
    "recurrent": lambda: mg.RecurrentMachine((1, 8, 8, 8, 8, 1), lags=9, timeblock=3),
    "sixty blocks": lambda: mg.DenseMachine((12, *(4,) * 58, 3)),
    "pooled": lambda: mg.ConvMachine(
        (1, *(8,) * 7, 10), kernel_size=(3, 3), scales=(0, 0, 0, 1, 1, 2, 2, 2, 3), pooling="max"
    ),
}
