"""The page of `jaxwiz audit --html`: what was found, and rows as text in colour. One file, no script, nothing fetched.

All text of the dataset is escaped, and the page's policy allows no script at all.
"""

import html
from collections.abc import Mapping, Sequence

from rich.text import Text

from jaxwiz.data.audit import CHECKS

_CLASSES = {"green": "loss", "cyan": "border", "bold magenta": "control", "bold magenta underline": "control loss"}
_STYLE = """
:root { --page: #f6f7f9; --card: #fff; --ink: #1a1f27; --soft: #5b6472; --line: #dfe3e9; --accent: #2457c5;
  --good: #17703a; --good-back: #dff3e6; --bad: #ab2222; --control: #8a2a8f; }
@media (prefers-color-scheme: dark) { :root { --page: #12151a; --card: #1b2027; --ink: #e7eaef; --soft: #9aa4b2;
  --line: #2f3742; --accent: #7da6ff; --good: #7fd8a0; --good-back: #173424; --bad: #ff9d94; --control: #d9a2ef; } }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin-top: 36px; }
table { border-collapse: collapse; width: 100%; background: var(--card); }
th, td { text-align: left; padding: 7px 12px; border: 1px solid var(--line); }
.ok { color: var(--good); } .fault { color: var(--bad); font-weight: 600; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin: 8px 0;
  padding: 8px 14px; }
summary { cursor: pointer; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 14px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
.loss { color: var(--good); background: var(--good-back); }
.control { color: var(--control); font-weight: 600; }
.border { color: var(--accent); }
"""


def render_page(
    title: str, rows: int, counts: Mapping[str, int], findings: Sequence[str], looks: Sequence[tuple[str, Text]]
) -> str:
    """Returns the page as HTML.

    Args:
      title: the dataset's path.
      rows: how many were checked.
      counts: faults of each check.
      findings: lines that name shard, row and fault; perhaps not all.
      looks: title and coloured text of some rows, the first of which stands open.
    """
    checks = "".join(
        f"<tr><th>{html.escape(check)}</th><td>{html.escape(promise)}</td>"
        + (f'<td class="fault">{counts[check]:,} faults</td></tr>' if counts[check] else '<td class="ok">ok</td></tr>')
        for check, promise in CHECKS.items()
    )
    total = sum(counts.values())
    found = "".join(f"<li>{html.escape(line)}</li>" for line in findings)
    part = "" if len(findings) == total else f", the first {len(findings)} of {total:,}"
    shown = f"<h2>Faults{part}</h2><ul>{found}</ul>"
    bodies = "".join(
        f"<details{' open' if place == 0 else ''}><summary>{html.escape(name)}</summary>"
        f"<pre>{_markup(text)}</pre></details>"
        for place, (name, text) in enumerate(looks)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Audit of {html.escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Audit of {html.escape(title)}</h1><p>{rows:,} rows, {total:,} faults</p><table>{checks}</table>"
        f"{shown if findings else ''}<h2>Rows</h2>"
        '<p><span class="loss">bears loss</span> · <span class="control">control token</span> · '
        f'<span class="border">border of an example</span></p>{bodies}</main></body></html>\n'
    )


def _markup(text: Text) -> str:
    """Returns rich text as escaped HTML; its spans follow one another."""
    parts, end = [], 0
    for span in text.spans:
        parts.append(html.escape(text.plain[end : span.start]))
        parts.append(
            f'<span class="{_CLASSES[str(span.style)]}">{html.escape(text.plain[span.start : span.end])}</span>'
        )
        end = span.end
    return "".join([*parts, html.escape(text.plain[end:])])
