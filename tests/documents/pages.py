"""README and the pages of docs/, and what they tell a reader to type."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guide.md"
PAGES = [ROOT / "README.md", GUIDE, *sorted(set((ROOT / "docs").rglob("*.md")) - {GUIDE})]


def lines_to_type(page: Path) -> list[str]:
    """Returns a page's lines of shell in their order, and each `jaxwiz ...` that stands in its sentences."""
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    language: str | None = None  # of the block that a line stands in
    found: list[str] = []
    for line in text.splitlines():
        if line.startswith("```"):
            language = line[3:] if language is None else None
        elif language in ("sh", "bash") or (language is None and re.match(r" {4,}\S*jaxwiz [a-z]", line)):
            found.append(re.sub(r"\s+#\s.*", "", line).strip())
        elif language is None:
            found += re.findall(r"`(jaxwiz [^`]+)`", line)
    return list(dict.fromkeys(line for line in found if line))
