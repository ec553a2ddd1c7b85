"""docs/platforms: a page for every platform, each with the same parts, and figures that are those of the plans."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "platforms"
PLATFORMS = ("local", "slurm", "ray", "tpu-vm", "gke", "skypilot")
DOLLARS = {"v4": 3.22, "v5e": 1.20, "v5p": 4.20}  # as the page says
STEPS = 200


def row(recipe: str) -> str:
    """Returns a recipe's line of the table of costs, from its plan."""
    plan = json.loads((ROOT / "benchmarks" / "results" / "plan.json").read_text())[recipe]
    chips, dollars = plan["chips"], DOLLARS[plan["topology"].partition(":")[0]]
    least_and_most = [plan["seconds"][name] for name in ("step", "serial")]
    hours = [STEPS * seconds / 3600 for seconds in least_and_most]
    cells = [
        " to ".join(f"{seconds:.2f}" for seconds in least_and_most),
        " to ".join(f"{60 * each:.0f}" for each in hours),
        " to ".join(f"{chips * each:.0f}" for each in hours),
        " to ".join(f"{chips * each * dollars:.0f}" for each in hours),
    ]
    return f"| {recipe} | {chips} | {' | '.join(cells)} |"


def test_costs_are_those_of_the_plans() -> None:
    text = (PAGES / "README.md").read_text()
    rows = re.findall(r"^\| wizardcoder.*", text, re.MULTILINE)
    assert rows == [row(line.split()[1]) for line in rows] and len(rows) == 3
    assert all(f"{generation} {price:.2f}" in text for generation, price in DOLLARS.items())
    # What other pages repeat of it.
    minutes_and_dollars = {tuple(re.findall(r"\d+ to \d+", line)[-i] for i in (3, 1)) for line in rows}
    said = [
        found
        for name in PLATFORMS
        for found in re.findall(
            r"(\d+ to \d+)\sminutes,?\s(?:and\s(?:cost\s)?)?(\d+\sto\s\d+)", (PAGES / f"{name}.md").read_text()
        )
    ]
    assert len(said) == 7
    assert {tuple(re.sub(r"\s", " ", part) for part in found) for found in said} <= minutes_and_dollars


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_page_starts_from_nothing_and_ends_where_it_hangs(platform: str) -> None:
    text = (PAGES / f"{platform}.md").read_text()
    headings = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert headings == ["From nothing", "Cost and time", "What preemption does", "When it hangs"]
    assert "34B" in text or "wizardcoder-34b" in text
    assert f"({platform}.md)" in (PAGES / "README.md").read_text()


def test_scripts_and_specs_that_pages_name_exist() -> None:
    text = "".join(page.read_text() for page in PAGES.glob("*.md"))
    pattern = r"(?<![\w/])(?:launch|configs|requirements)/[\w./-]*\.(?:sh|py|sbatch|yaml|txt|Dockerfile)"
    named = set(re.findall(pattern, text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    scripts = {
        str(path.relative_to(ROOT)) for kind in ("sh", "sbatch", "py") for path in (ROOT / "launch").rglob(f"*.{kind}")
    }
    assert scripts <= named
