"""The page in a real browser, if there is one: nothing is asked for, nothing is wider than the screen."""

import re
import shutil
import subprocess

import pytest
from report_runs import facts, trace

from disttgl_hpc.report.page import render_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FRAME = """<body style="margin:0"><iframe id="f" src="report.html" width="{width}" height="800"></iframe><script>
f.onload = () => {{
  const page = f.contentDocument, asked = f.contentWindow.performance.getEntriesByType("resource").length;
  const shown = [...page.querySelectorAll(".tabs > .charts")]
    .filter(one => one.getBoundingClientRect().width > 0).length;
  const small = [...page.querySelectorAll(".charts text")].map(one => one.getBoundingClientRect().height)
    .filter(height => height > 0 && height < 8).length;
  document.title = [page.documentElement.scrollWidth, asked, shown, small].join(" ");
}}</script></body>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def look(folder, *options):
    """What Chromium prints of frame.html; skips where it cannot be started here."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--allow-file-access-from-files",
        f"--user-data-dir={folder / 'profile'}",
        *options,
        f"file://{folder / 'frame.html'}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("Chromium does not come to an end here")
    if done.returncode:
        pytest.skip(f"Chromium does not start here: {done.stderr[-300:]}")
    return done.stdout


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_the_screen_and_asks_for_nothing(tmp_path, width):
    runs = [facts("one", trace=trace()), facts("two", seed=1), facts("a-rather-long-name-of-a-run", lr=0.1)]
    (tmp_path / "report.html").write_text(render_report(runs), encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width), encoding="utf-8")
    shown = look(tmp_path, f"--window-size={max(width, 500)},900", "--virtual-time-budget=5000", "--dump-dom")
    found = re.search(r"<title>(\d+) (\d+) (\d+) (\d+)</title>", shown)
    if found is None:
        pytest.skip("Chromium does not load pages here")
    scroll_width, asked, charts, small = map(int, found.groups())
    assert scroll_width <= width
    assert asked == 0
    assert charts == 1, "curves are seen by one of three axes"
    assert small == 0, "no text of a chart is too small to be read"
