"""A report in a real browser: what is clicked, both themes, both widths, and that no request leaves the page."""

import re
import shutil
from dataclasses import replace

import pytest
from test_report import HOSTILE, made_up

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")

# beside what a container needs: nothing that a browser asks of the network by itself
OFFLINE = ("quic", "background-networking", "component-update", "sync")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", *(f"--disable-{service}" for service in OFFLINE)]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "report.html"
    path.write_text(made_up(200).page(), encoding="utf-8")
    return path


@pytest.fixture
def visit(browser):
    """Open a page; at the end of the test nothing may have gone wrong in it, and nothing have been asked for."""
    contexts, complaints, requests = [], [], []

    def visit(path, *, width=1200, theme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith(("file:///", "data:"))} == set()
    assert len([url for url in requests if url.startswith("file:")]) == len(contexts), "only the pages themselves"


def column(page, key):
    index = page.locator("#table thead th").evaluate_all(
        "(all, key) => all.findIndex(th => th.dataset.key === key)", key
    )
    return page.locator(f"#table tbody tr td:nth-child({index + 1})").all_inner_texts()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_it_opens_without_complaint_and_fits(visit, report, width, theme):
    page = visit(report, width=width, theme=theme)
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".diagram:visible").count() == 2
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
    page.locator("summary").click()
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
    page = visit(path)
    assert page.locator("h1").inner_text() == HOSTILE
    assert any("<script>" in text for text in column(page, "network"))
    assert page.evaluate("document.querySelectorAll('img').length") == 0


def test_of_two_thousand_trials_only_some_rows_are_made_at_first(visit, tmp_path):
    few = made_up(40)
    path = tmp_path / "report.html"
    records = [replace(few.records[i % 40], number=i) for i in range(2000)]
    path.write_text(replace(few, records=records).page())
    page = visit(path)
    assert page.locator("#count").inner_text() == "2,000 of 2,000 trials"
    before = page.locator("#table tbody tr").count()
    assert before < 500
    page.locator(".tall-list").evaluate("box => box.scrollTop = box.scrollHeight")
    page.locator("#table tbody tr").nth(before).wait_for(state="attached")  # wait_for_function is against its policy
