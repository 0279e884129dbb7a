"""How do tests drive the page? In a real Chromium without a window, by selenium; `make test-browser` runs them.

They are no part of `make test`: whoever does not ask for them, or has no Chromium, sees a line that says so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lpc

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
ASKED = "LPC_BROWSER" in os.environ
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
LAPTOP = (1366, 768)


def why_not() -> str:
    """Return why there is no browser to drive, or nothing."""
    if not ASKED:
        return "`make test-browser` runs them"
    if CHROMIUM is None or DRIVER is None:
        return "there is no Chromium here: apt-get install chromium chromium-driver"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a browser where none is wanted, or there is none."""
    reason = why_not()
    for item in items:
        if reason and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"browser: {reason}"))


Open = Callable[..., Any]


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser of a laptop's size, with a profile of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM or ""
    profile = tmp_path_factory.mktemp("profile")
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={LAPTOP[0]},{LAPTOP[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield found
    finally:
        found.quit()


@pytest.fixture
def page(driver: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a plan's page; afterwards nothing may have been written to the console."""
    from lpc.views.html.page import page as written

    def opened(plan: lpc.Plan) -> Any:
        path = tmp_path / "page.html"
        path.write_text(written(plan), encoding="utf-8")
        driver.get(path.as_uri())
        return driver

    driver.get_log("browser")
    yield opened
    assert driver.get_log("browser") == []
