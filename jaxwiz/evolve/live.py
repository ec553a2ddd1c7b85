"""What is seen of a run while it goes on: speed, calls in flight, retries, tokens, money, and how long it will take.

On a terminal these are a few lines that are drawn again four times a second, also while nothing is answered; in a log
they are a line every 10 s. A phase that has ended leaves one line. Speed is that of the last 30 s. The time left of the
run is a bound: it takes each later phase to have as many calls as it can have.
"""

import collections
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jaxwiz.console import Advance, progress, say
from jaxwiz.evolve.account import Account
from jaxwiz.llm.protocol import Activity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SPEED_S = 30.0  # over which speed is measured
BETWEEN_LOOKS_S = 0.5
FRAMES_PER_S = 4.0
BAR_WIDTH = 30


class LiveView:
    """Shows one phase of calls after the other; `watch` is what a `JournaledGenerator` wants."""

    def __init__(
        self,
        activity: Activity,
        account: Account,
        plan: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the view.

        Args:
          activity: the generator's.
          account: the run's.
          plan: most calls of each phase of the run, by its title, in order; None: nothing is said of the run's end.
          clock: seconds from any beginning on.
        """
        self._activity, self._account, self._clock = activity, account, clock
        self._plan = dict(plan or {})
        self._title, self._total, self._done = "", 0, 0
        self._looked_at = 0  # how many answers there were when `_seen` got its last entry
        self._began = clock()
        self._seen: collections.deque[tuple[float, int, int]] = collections.deque()  # time, calls, tokens

    @contextmanager
    def watch(self, title: str, total: int, known: int = 0, terminal: "Console | None" = None) -> Iterator[Advance]:
        """Yields what to call for each answer of a phase.

        Args:
          title: the phase's.
          total: calls of it.
          known: calls of it that were answered before.
          terminal: where to draw; None: stderr, if that is a terminal.
        """
        self._title, self._total, self._done, self._began = title, total, known, self._clock()
        self._seen.clear()
        self._seen.append((self._began, known, self._account.tokens))
        if terminal is None and not sys.stderr.isatty():
            with progress(title, total, unit="calls", start=known) as advance:
                line = ""

                def log(units: int = 1, note: str = "") -> None:
                    nonlocal line
                    self._advance(units)
                    if self._looked_at == self._done or self._done == self._total:
                        line = self.line()  # it costs more than all else that is done for an answer
                    advance(units, line)

                yield log
            return
        from rich.console import Console
        from rich.live import Live

        terminal = terminal or Console(stderr=True)
        with Live(
            console=terminal, get_renderable=self.render, refresh_per_second=FRAMES_PER_S, transient=True
        ) as drawn:
            yield self._advance
            drawn.refresh()
        say(f"{title}: {self._done}/{total} calls in {span(self._clock() - self._began)}, {self._account.spent()}")

    def line(self) -> str:
        """Returns speed, calls and what they took in one line, for a log."""
        return f"{self._speed()}, {self._calls()}, {self._taken()}{self._left_of_run()}"

    def render(self) -> "Table":
        """Returns the lines for a terminal."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        head = Table.grid(padding=(0, 1))
        head.add_row(
            self._title,
            ProgressBar(total=self._total, completed=self._done, width=BAR_WIDTH),
            f"{self._done:,}/{self._total:,} calls",
        )
        rows = Table.grid(padding=(0, 2))
        rows.add_row("speed", self._speed())
        rows.add_row("calls", self._calls())
        rows.add_row("taken", self._taken())
        rows.add_row("left", self._left() + self._left_of_run())
        whole = Table.grid()
        whole.add_row(head)
        whole.add_row(rows)
        return whole

    def _advance(self, units: int = 1, note: str = "") -> None:
        self._done += units
        now = self._clock()
        if now - self._seen[-1][0] >= BETWEEN_LOOKS_S:
            self._seen.append((now, self._done, self._account.tokens))
            self._looked_at = self._done
        while len(self._seen) > 1 and self._seen[1][0] <= now - SPEED_S:
            self._seen.popleft()

    def _rates(self) -> tuple[float, float]:
        """Returns calls and tokens a second of late; 0 before the first answer."""
        then, calls, tokens = self._seen[0]
        seconds = self._clock() - then
        if seconds <= 0:
            return 0.0, 0.0
        return (self._done - calls) / seconds, (self._account.tokens - tokens) / seconds

    def _speed(self) -> str:
        calls, tokens = self._rates()
        return f"{calls:.1f} calls/s, {60 * tokens:,.0f} tokens/min"

    def _calls(self) -> str:
        parts = [f"{self._activity.in_flight} in flight"]
        if self._activity.waiting:
            parts.append(f"{self._activity.waiting} held back")
        return ", ".join([*parts, f"{self._activity.retries} retries"])

    def _taken(self) -> str:
        account, budget = self._account, self._account.budget
        text = f"{account.tokens:,} tokens" + (f" of {budget.max_tokens:,}" if budget.max_tokens else "")
        if account.cost is None:
            return text
        most = f" of {budget.max_cost:.2f}" if budget.max_cost else ""
        return f"{text}, {account.cost:.2f}{most} {account.currency}"

    def _left(self) -> str:
        calls, _ = self._rates()
        return f"{span((self._total - self._done) / calls)} of this phase" if calls else "not known yet"

    def _left_of_run(self) -> str:
        titles = list(self._plan)
        calls, _ = self._rates()
        if not calls or self._title not in self._plan:
            return ""
        later = sum(self._plan[title] for title in titles[titles.index(self._title) + 1 :])
        return f", at most {span((self._total - self._done + later) / calls)} of the run"


def span(seconds: float) -> str:
    """Returns a time in the unit that suits it."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
