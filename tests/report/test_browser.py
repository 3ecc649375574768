"""The report as a browser shows it; DESMATCH_REQUIRE_CHROMIUM=1 forbids to skip these tests."""

import os
import shutil
import subprocess

import pytest
from matplotlib.image import imread

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--virtual-time-budget=2000",
]


@pytest.fixture(scope="session")
def chromium():
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    path = next(filter(None, found), None)
    if path is None and os.environ.get("DESMATCH_REQUIRE_CHROMIUM") == "1":
        pytest.fail("DESMATCH_REQUIRE_CHROMIUM=1, and no chromium is on the PATH")
    if path is None:
        pytest.skip("no chromium on the PATH")
    return path


def visit(chromium, page, profile, *flags):
    """Open a page; return what chromium printed and the console messages of the page."""
    done = subprocess.run(
        [chromium, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_browser_paints_the_page_without_a_console_message(chromium, tmp_path, report):
    picture = tmp_path / "page.png"
    dom, console = visit(
        chromium, report, tmp_path, "--dump-dom", "--window-size=800,900", f"--screenshot={picture}"
    )
    assert console == []
    assert dom.count("<figure>") == dom.count("<svg ") == 7
    assert dom.rstrip().endswith("</html>")
    pixels = imread(picture)
    assert pixels.shape[1] == 800
    assert pixels.std() > 0.05  # an empty page is of one color


def test_browser_would_report_a_resource_from_outside(chromium, tmp_path, report):
    html = report.read_text(encoding="utf-8")
    page = tmp_path / "page.html"
    page.write_text(html.replace("</header>", "</header><img src='other.png'>"), encoding="utf-8")
    _, console = visit(chromium, page, tmp_path, "--dump-dom")
    assert any("Content Security Policy" in line for line in console)
