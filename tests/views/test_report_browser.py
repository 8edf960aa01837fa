"""The report in a real browser: drawn at three widths, light and dark, without an error and without the network."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from bundles.dataset import write_dataset
from matplotlib.image import imread

from stpatch.views.report.page import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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
    "--enable-logging=stderr",
    "--force-prefers-reduced-motion",
)
CONSOLE = re.compile(r"CONSOLE[:(].*")
PROBE = """
<script>
addEventListener("load", () => {
  const said = [];
  const find = document.getElementById("find");
  find.value = "s2"; find.dispatchEvent(new Event("input"));
  const rows = () => [...document.querySelectorAll("#slide-table tbody tr")];
  said.push("shown " + rows().filter((row) => !row.hidden).map((row) => row.dataset.slide));
  find.value = ""; find.dispatchEvent(new Event("input"));
  const head = [...document.querySelectorAll("#slide-table thead th")].find((th) => th.textContent === "patches");
  head.querySelector("button").click();
  said.push("sorted " + rows().map((row) => row.dataset.slide) + " " + head.getAttribute("aria-sort"));
  head.querySelector("button").click();
  said.push("turned " + rows().map((row) => row.dataset.slide));
  document.getElementById("next").click();
  said.push("step " + document.getElementById("where").textContent);
  location.hash = "#slide-s2";
  setTimeout(() => {
    said.push("opened " + document.getElementById("slide-s2").open);
    said.push("overflow " + (document.documentElement.scrollWidth - document.documentElement.clientWidth));
    said.push("loaded " + performance.getEntriesByType("resource").filter((e) => !e.name.startsWith("data:")).length);
    document.title = said.join("; ");
  }, 200);
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser") / "tiny"
    write_dataset(folder)
    return report(folder)


@pytest.fixture
def server(page: str) -> Iterator[tuple[str, list[str]]]:
    """Serve the page and note every request, as the network would see them."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            data = page.replace("</body>", f"{PROBE}</body>").encode()
            self.send_response(200 if self.path == "/report.html" else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}/report.html", asked
    served.shutdown()
    served.server_close()
    thread.join()


def browse(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the browser with an empty profile; its log is its stderr."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: the report is not looked at in a browser")
    profile = folder / "profile"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    shutil.rmtree(profile, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("width", [390, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_drawn_without_an_error(width: int, scheme: str, page: str, tmp_path: Path) -> None:
    path, out = tmp_path / "report.html", tmp_path / "out.png"
    path.write_text(page, encoding="utf-8")
    colours = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    done = browse(tmp_path, *colours, f"--window-size={width},2000", f"--screenshot={out}", path.as_uri())
    assert not CONSOLE.findall(done.stderr)
    image = imread(out)[..., :3]
    assert image.shape[:2] == (2000, width)
    paper = np.median(image.reshape(-1, 3), axis=0).mean()
    assert paper > 0.9 if scheme == "light" else paper < 0.2
    assert (np.abs(image - paper).max(axis=-1) > 0.3).mean() > 0.01, "something is on it"


def test_it_works_and_asks_for_nothing(server: tuple[str, list[str]], tmp_path: Path) -> None:
    url, asked = server
    done = browse(tmp_path, "--window-size=390,1200", "--virtual-time-budget=3000", "--dump-dom", url)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None
    said = dict(part.split(" ", 1) for part in title[1].split("; "))
    assert said["shown"] == "s2"
    assert said["sorted"] == "s1,s2 descending"
    assert said["turned"] == "s2,s1"
    assert said["step"].startswith("2 of ")
    assert said["opened"] == "true"
    assert said["overflow"] == "0", "the page is as wide as a phone; what is wider scrolls by itself"
    assert said["loaded"] == "0"
    assert asked == ["/report.html"]
    assert not CONSOLE.findall(done.stderr)


def test_an_error_on_the_console_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<!doctype html><script>nothing.there()</script>", encoding="utf-8")
    assert CONSOLE.findall(browse(tmp_path, "--dump-dom", path.as_uri()).stderr)
