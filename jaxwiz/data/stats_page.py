"""The page of `jaxwiz data stats`: histograms as SVG, with tables of the same. One file, no script, nothing fetched.

Each bar says its range and count when it is pointed at. The page follows the reader's choice of light or dark.
"""

import html
from collections.abc import Sequence

from jaxwiz.data.histogram import Histogram
from jaxwiz.data.stats import SplitStats, table_of

BARS = 60
WIDTH, HEIGHT = 520, 240  # of a drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 16, 28  # around the bars
LABELS = 5  # below the bars
_STYLE = """
:root { --page: #f6f7f9; --card: #fff; --ink: #1a1f27; --soft: #5b6472; --line: #dfe3e9; --accent: #2457c5;
  --bad: #ab2222; }
@media (prefers-color-scheme: dark) { :root { --page: #12151a; --card: #1b2027; --ink: #e7eaef; --soft: #9aa4b2;
  --line: #2f3742; --accent: #7da6ff; --bad: #ff9d94; } }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin-top: 36px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 14px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; background: var(--card); }
th, td { text-align: right; padding: 7px 12px; border: 1px solid var(--line); white-space: nowrap; }
th:first-child { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px;
  margin-top: 16px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
figcaption { font-weight: 600; }
figcaption span { color: var(--soft); font-weight: 400; }
svg { width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12px; }
svg .bar { fill: var(--accent); }
svg .bar:hover { fill: var(--ink); }
svg .grid { stroke: var(--line); }
svg .median { stroke: var(--bad); stroke-dasharray: 4 3; }
"""


def render_page(title: str, summary: str, splits: Sequence[SplitStats]) -> str:
    """Returns the page as HTML.

    Args:
      title: the dataset's path.
      summary: lines of text about the whole.
      splits: what was measured.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Statistics of {html.escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Statistics of {html.escape(title)}</h1><pre>{html.escape(summary)}</pre>"
        f"{''.join(map(_section, splits))}</main></body></html>\n"
    )


def _section(stats: SplitStats) -> str:
    heading, lines = table_of(stats)
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in heading)
    body = "".join(
        f"<tr><th>{html.escape(line[0])}</th>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line[1:])}</tr>"
        for line in lines
    )
    return (
        f"<h2>{html.escape(stats.split)}: {stats.examples:,} examples in {stats.rows:,} rows</h2>"
        f'<div class="scroll"><table><tr>{cells}</tr>{body}</table></div>'
        f'<div class="plots">{"".join(map(_figure, stats.histograms))}</div>'
    )


def _figure(histogram: Histogram) -> str:
    bars = histogram.bars(BARS)
    low, high = bars[0].low, bars[-1].high + 1
    grid = _grid(max(bar.count for bar in bars))

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(count: float) -> float:
        return HEIGHT - BOTTOM - count / grid[-1] * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(count):.1f}" y2="{y(count):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y(count) + 4:.1f}" text-anchor="end">{count:,}</text>'
        for count in grid
    ]
    for bar in bars:
        values = histogram.show(bar.low) + (f" to {histogram.show(bar.high)}" if bar.high > bar.low else "")
        parts.append(
            f'<rect class="bar" x="{x(bar.low):.2f}" y="{y(bar.count):.2f}" '
            f'width="{max(x(bar.high + 1) - x(bar.low) - 1, 1):.2f}" height="{y(0) - y(bar.count):.2f}">'
            f"<title>{values}: {bar.count:,} {histogram.of}</title></rect>"
        )
    for bar in bars[:: -(-len(bars) // LABELS)]:
        middle = (bar.low + bar.high + 1) / 2
        shown = histogram.show((bar.low + bar.high) // 2)
        parts.append(f'<text x="{x(middle):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{shown}</text>')
    median = histogram.percentile(50)
    at = f"{x(median + 0.5):.1f}"
    parts.append(f'<line class="median" x1="{at}" x2="{at}" y1="{TOP}" y2="{y(0):.1f}"/>')
    caption = f"{histogram.title} <span>· {histogram.of}, median {histogram.show(median)}</span>"
    return (
        f'<figure><figcaption>{caption}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{histogram.title}: the table above has its percentiles">{"".join(parts)}</svg></figure>'
    )


def _grid(largest: int) -> list[int]:
    """Returns 0 and a few round numbers above it, the last of which is at least `largest`."""
    step = next(digit * 10**power for power in range(20) for digit in (1, 2, 5) if digit * 10**power * 4 >= largest)
    return list(range(0, largest + step, step))
