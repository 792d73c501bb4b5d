"""What comes before all tests, and a browser for those that need one."""

import os
import shutil
from collections.abc import Iterator

import pytest
import threadpoolctl
import torch
from optuna.storages._rdb.storage import _VersionManager
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import NearestCentroid

import machgraph as mg
from machgraph.warm_up import warm_up
from search import report
from search.comparison import rivals

# Tests run on all cores already: threads of each beside those of the others wait for each other most of the time.
torch.set_num_threads(1)
threadpoolctl.threadpool_limits(1)

# Each generation is a commit, which waits for the disk where there is one.
MEMORY, ENOUGH = "/dev/shm", 4 << 30
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)

LONG = {"test_guides", "test_kernels", "test_operator", "test_suggest", "test_workers"}

# beside what a container needs: nothing that a browser asks of the network by itself
OFFLINE = ("quic", "background-networking", "component-update", "sync")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", *(f"--disable-{service}" for service in OFFLINE)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first: at the end all would wait for one."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """Compile first what is not on disk, so that what is told of it is in no test's output."""
    warm_up()
    mg.DenseMachine((1, 1), dtype=torch.float64)(torch.ones(1, 1, dtype=torch.float64)).sum().backward()


@pytest.fixture(scope="session", autouse=True)
def _migrations() -> Iterator[None]:
    """Optuna reads its scripts of migrations for each study that is opened: once is enough."""
    read, scripts = _VersionManager._create_alembic_script, []

    def once(manager):
        if not scripts:
            scripts.append(read(manager))
        return scripts[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "_create_alembic_script", once)
        yield


@pytest.fixture
def plain(monkeypatch):
    """Searches without a report, which takes its time; of scikit-learn's models a quick one alone."""
    models = {"classification": NearestCentroid(), "regression": LinearRegression()}
    monkeypatch.setattr(rivals, "_models", lambda dataset: {"linear": models[dataset.task]})
    monkeypatch.setattr(report, "write", lambda folder: None)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open a page; at the end of the test nothing may have gone wrong in it, and nothing have been asked for."""
    contexts, complaints, requests = [], [], []

    def visit(path, *, width=1200, theme="light", touch=False):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, has_touch=touch)
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
