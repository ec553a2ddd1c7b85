"""Makes the pictures of the documentation from a finished run of the quickstart: what each report looks like.

    .venv/bin/python docs/screenshots.py runs/quickstart

Needs a Chromium, like the tests of the reports, whose client of the browser this uses.
"""

import argparse
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from jaxwiz.cli import main as jaxwiz  # noqa: E402 - the two come from the tree that the pictures are for
from tests.chromium import EXECUTABLE, Chromium  # noqa: E402

WIDTH = 1240
FIRST_DIFFERENCE = "(document.querySelector('tr.task:has(.change span)') ?? document.querySelector('tr.task'))"


def main() -> None:
    """Takes all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the quickstart's `out` folder")
    options = parser.parse_args()
    if EXECUTABLE is None:
        parser.error("there is no Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for command, step in (("audit", "data"), ("insight", "evolve")):
            if code := jaxwiz([command, str(options.run / step), "--html", str(folder / f"{command}.html")]):
                sys.exit(code)
        browser = Chromium(folder / "profile")
        try:
            take(browser, folder / "audit.html", "audit.png", 900)
            take(browser, folder / "insight.html", "insight.png", 1560)
            take(browser, options.run / "evaluate" / "report.html", "report.png", 1560)
            take(browser, options.run / "evaluate" / "report.html", "side-by-side.png", 1330, FIRST_DIFFERENCE)
        finally:
            browser.close()


def take(browser: Chromium, page: Path, picture: str, height: int, opened: str | None = None) -> None:
    """Writes docs/PICTURE: the top of a page, or what stands below a task whose answers are opened first."""
    browser.open(page)
    browser.resize(WIDTH, height)
    if opened:
        browser.run(f"{opened}.querySelector('button').click(), {opened}.scrollIntoView()")
    browser.screenshot(DOCS / picture)
    print(f"docs/{picture}: {WIDTH} x {height}")


if __name__ == "__main__":
    main()
