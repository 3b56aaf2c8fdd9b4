"""Pages opened in headless Chromium, from the disk and without a network."""

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

# Runs behind everything else in a page and tells the page around it what became of it. XML, for
# Python reads that strictly.
_PROBE = """
<script>
(async () => {
  for (const act of ACTS) {
    act();
    await new Promise(done => setTimeout(done, 20));  // for the address to have changed
  }
  const root = document.documentElement, places = {};
  const note = (name, element) => {
    const { left, top, width, height } = element.getBoundingClientRect();
    places[name] = [left, top, width, height];
  };
  for (const element of document.querySelectorAll("[data-map]")) {
    note(element.dataset.map, element);
    for (const canvas of element.querySelectorAll("canvas")) {
      note(`${element.dataset.map} cells`, canvas);
    }
  }
  const text = new XMLSerializer().serializeToString(document.body);
  const overflow = Math.max(root.scrollWidth, document.body.scrollWidth) - root.clientWidth;
  parent.postMessage({ text, places, overflow, width: innerWidth, address: location.hash }, "*");
})();
</script>
"""
# A window of Chromium is at least 500 wide; a frame in it can be as narrow as a phone.
_AROUND = """<!doctype html>
<body style="margin: 0"><script>
const reports = {{}};
addEventListener("message", event => {{
  const frames = [...document.querySelectorAll("iframe")];
  reports[frames.findIndex(frame => frame.contentWindow === event.source)] = event.data;
  document.getElementById("reports").textContent = JSON.stringify(reports);
}});
</script>
{frames}
<pre id="reports" hidden></pre>
"""


def find_chromium() -> str | None:
    """The browser: what MINIBERT_CHROMIUM names, else what there is on the PATH."""
    named = os.environ.get("MINIBERT_CHROMIUM")
    return next(filter(None, map(shutil.which, [named] if named else NAMES)), None)


@dataclass(frozen=True)
class View:
    """A page to be opened."""

    page: Path
    fragment: str = ""
    width: int = 1280
    height: int = 900
    acts: tuple[str, ...] = ()  # JavaScript: what somebody does there, one thing after the other


@dataclass(frozen=True)
class Shown:
    """What a page looks like once its scripts have run."""

    body: ElementTree.Element
    overflow: int  # pixels by which it is wider than its window
    picture: Image.Image
    places: dict[str, tuple[float, float, float, float]]  # of its maps: left, top, width, height
    address: str  # the fragment

    def all(self, path: str) -> list[ElementTree.Element]:
        return self.body.findall(f".//{path}")

    def one(self, path: str) -> ElementTree.Element:
        (found,) = self.all(path)
        return found

    def cells(self, place: str, rows: int, columns: int) -> list[list[int]]:
        """How bright each cell of a map is, from 0 to 765, in the middle of it."""
        left, top, width, height = self.places[f"{place} cells"]

        def at(row: int, column: int) -> int:
            x, y = left + (column + 0.5) * width / columns, top + (row + 0.5) * height / rows
            return sum(self.picture.getpixel((round(x), round(y))))

        return [[at(row, column) for column in range(columns)] for row in range(rows)]

    def colours_at(self, place: str) -> int:
        """How many colours a map has."""
        left, top, width, height = self.places[place]
        box = (left, top, min(left + width, self.picture.width), top + height)
        colours = self.picture.crop(tuple(round(each) for each in box)).getcolors(1 << 24)
        return len(colours or [])


def text_of(element: ElementTree.Element) -> str:
    return "".join(element.itertext())


def look(views: Sequence[View], *, dark: bool = False) -> list[Shown]:
    """Open pages, all in one start of the browser; any error of a script is one here."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        frames = []
        for i, view in enumerate(views):
            copy = folder / f"{i}.html"
            acts = f"[{','.join(f'() => {{ {act} }}' for act in view.acts)}]"
            text = view.page.read_text(encoding="utf-8") + _PROBE.replace("ACTS", acts)
            copy.write_text(text, encoding="utf-8")
            address = html.escape(f"{copy.as_uri()}#{view.fragment}")
            size = f'width="{view.width}" height="{view.height}"'
            frames.append(f'<iframe style="display: block; border: 0" {size} src="{address}">')
            frames.append("</iframe>")
        around = folder / "around.html"
        around.write_text(_AROUND.format(frames="".join(frames)), encoding="utf-8")
        size = (max(500, *(v.width for v in views)), sum(v.height for v in views))
        result = subprocess.run(
            [
                str(find_chromium()), "--headless", "--disable-gpu", "--hide-scrollbars",
                *(["--no-sandbox"] if os.geteuid() == 0 else []),
                "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                "--enable-logging=stderr", "--v=0", "--virtual-time-budget=10000",
                f"--window-size={size[0]},{size[1]}", f"--screenshot={folder / 'picture.png'}",
                "--dump-dom", around.as_uri(),
            ],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        said = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
        assert not said, said
        found = re.search(r'<pre id="reports"[^>]*>(.*?)</pre>', result.stdout, re.DOTALL)
        assert found, result.stdout[-2000:]
        reports = json.loads(html.unescape(found[1]))
        with Image.open(folder / "picture.png") as picture:
            whole = picture.convert("RGB")
    shown, top = [], 0
    for i, view in enumerate(views):
        report = reports[str(i)]
        assert report["width"] == view.width
        text = report["text"].replace(' xmlns="http://www.w3.org/1999/xhtml"', "")
        part = whole.crop((0, top, view.width, top + view.height))
        shown.append(
            Shown(
                ElementTree.fromstring(text),
                report["overflow"],
                part,
                report["places"],
                report["address"].removeprefix("#"),
            )
        )
        top += view.height
    return shown
