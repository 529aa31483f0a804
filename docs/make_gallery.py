"""Make the pictures of docs/gallery.md from a finished run: python docs/make_gallery.py STORE.

The run is that of the preset `all-digits`. Plots are those of its report; pages are photographed by headless Chromium.
"""

import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

RUN = "all-digits"
FOLDER = Path(__file__).resolve().parent / "images" / "gallery"
WIDTH, QUALITY = 880, 82  # pixels; of WebP
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Picture:
    """A picture of the gallery.

    Attributes
    ----------
    name : of its file, without the ending
    source : a plot below `figures/` of the report, or a page with a fragment
    box : of a page: the part that is kept, left, top, right, bottom in pixels of a window of 1280 pixels
    """

    name: str
    source: str
    box: tuple[int, int, int, int] | None = None


PICTURES = (
    Picture("distance", "figures/small-ice-distance.png"),
    Picture("histogram", "figures/decomposition-small-histogram.png"),
    Picture("controls", "figures/decomposition-small-controls.png"),
    Picture("maps", "figures/decomposition-small-maps.png"),
    Picture("concepts", "figures/concepts-small-0.png"),
    Picture("plane", "figures/concept-plane-small-0.png"),
    Picture("class-share", "figures/class-share-small-0.png"),
    Picture("neuron", "concepts.html#neuron=2&layer=8", (360, 0, 1200, 1650)),
    Picture("card", "card", (60, 40, 1220, 1260)),
)


def main(store: str) -> None:
    """Write all pictures."""
    report = Path(store) / "reports" / RUN
    if not report.is_dir():
        raise SystemExit(f"{report}: expected the report of a run, found none; layerlore run {RUN} --set store={store}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        image = photographed(store, report, picture) if picture.box else Image.open(report / picture.source)
        print(written(image, FOLDER / f"{picture.name}.webp"))


def written(image: Image.Image, path: Path) -> str:
    """Write a picture in the size of the gallery, and say how large it is."""
    scale = min(1.0, WIDTH / image.width)
    small = image.convert("RGB").resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS
    )
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY, method=6)
    path.write_bytes(buffer.getvalue())
    return f"{path.name}: {small.width} x {small.height}, {len(buffer.getvalue()) / 1000:.0f} kB"


def photographed(store: str, report: Path, picture: Picture) -> Image.Image:
    """Return a part of a page."""
    page = picture.source
    if page == "card":
        page = card_page(store)
    file, _, fragment = page.partition("#")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "page.png"
        address = (report / file).resolve().as_uri() + (f"#{fragment}" if fragment else "")
        size = "--window-size=1280,9000"
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=8000")
        run([chromium(), *flags, size, f"--screenshot={shot}", address])
        image = Image.open(shot).convert("RGB")
        assert picture.box is not None
        left, top, right, bottom = picture.box
        start = top_of_explorer(image) if fragment else 0
        return image.crop((left, start + top, right, start + bottom))


def top_of_explorer(image: Image.Image) -> int:
    """Return the first row of the explorer's card: where a long grey line begins at its left edge."""
    column = [image.getpixel((378, y)) for y in range(image.height)]
    border = (217, 222, 230)
    length = 0
    for y, pixel in enumerate(column):
        length = length + 1 if pixel == border else 0
        if length == 300:
            return y - 300
    raise SystemExit("the neuron explorer: expected its frame on the page, found none")


def card_page(store: str) -> str:
    """Write the card of the surest wrong answer and return its page, relative to the report."""
    out = run([sys.executable, "-m", "flows.cli", "card", store, "--run", RUN, "--wrong", "1"])
    found = re.findall(r"card-[\w.-]+\.html", out)
    if not found:
        raise SystemExit(f"layerlore card: expected the address of a page, found {out!r}")
    return str(found[-1])


def chromium() -> str:
    """Return the browser."""
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        raise SystemExit(f"expected one of {', '.join(CHROMIUM)}, found none; install Chromium")
    return found


def run(command: Sequence[str]) -> str:
    """Run a command and return what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(f"{sys.argv[0]}: expected STORE, found {len(sys.argv) - 1} arguments")
    main(sys.argv[1])
