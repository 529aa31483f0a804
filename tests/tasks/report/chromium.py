"""Pages opened in headless Chromium at several widths, and what a probe in them saw."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"),
    "--virtual-time-budget=8000",
]

# A window cannot be narrower than 500 pixels, a frame can.
FRAMES = """<!DOCTYPE html><pre id="seen"></pre><script>
const seen = [];
addEventListener("message", (e) => {
  seen.push(e.data);
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
for (const [page, width] of FRAMES) {
  const frame = document.createElement("iframe");
  Object.assign(frame, { src: page, width, height: 900 });
  document.body.append(frame);
}
</script>"""


def visit(folder: Path, pages: list[tuple[str, int]], probe: str) -> tuple[list[Any], str]:
    """Open pages at the given widths; return what the probe saw, in order, and Chromium's console lines.

    Parameters
    ----------
    folder : with the site
    pages : name and width in pixels
    probe : a script element that posts a message with at least `page` and `width` to the page around it
    """
    for name in {page for page, _ in pages}:
        page = folder / name
        page.write_text(page.read_text().replace("<head>", "<head>" + probe, 1))
    (folder / "frames.html").write_text(FRAMES.replace("FRAMES", json.dumps(pages)))
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1700,1000", "--dump-dom"]
    done = subprocess.run([*command, (folder / "frames.html").as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr
    seen: list[Any] = json.loads(html.unescape(found[1]) or "[]")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return sorted(seen, key=lambda each: (each["page"], -each["width"])), "\n".join(console)
