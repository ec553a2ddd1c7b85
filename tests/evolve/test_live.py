"""The view of a running evolution: what it says, on a clock of our own, on a terminal and in a log."""

import io

import pytest
from rich.console import Console

from jaxwiz.evolve.account import Account
from jaxwiz.evolve.config import BudgetConfig, PricesConfig
from jaxwiz.evolve.live import LiveView, span
from jaxwiz.llm.protocol import Activity, GenerationResult

PLAN = {"round 1: evolve": 100, "round 1: judge": 100, "round 1: answer": 300}


class Clock:
    now = 5.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A view with everything that it looks at; `answer` is what a generator's answer does to them."""

    def __init__(self, plan: dict[str, int] | None = None, **limits) -> None:
        self.clock, self.activity = Clock(), Activity()
        self.account = Account(PricesConfig(input_per_million=1000, output_per_million=1000), BudgetConfig(**limits))
        self.view = LiveView(self.activity, self.account, plan, self.clock)

    def answer(self, advance, seconds: float, count: int = 1) -> None:
        self.clock.now += seconds
        for _ in range(count):
            self.account.add(1, "evolve", GenerationResult("x", "stop", 30, 20))
            advance()

    def seen(self) -> str:
        console = Console(file=io.StringIO(), width=100)
        console.print(self.view.render())
        return " ".join(console.file.getvalue().split())


def test_speed_tokens_money_and_what_is_left():
    run = Run(PLAN, max_tokens=100_000, max_cost=50)
    with run.view.watch("round 1: evolve", 100) as advance:
        assert "left not known yet" in run.seen()
        run.activity.in_flight, run.activity.retries, run.activity.waiting = 7, 3, 2
        run.answer(advance, 10.0, count=20)
        seen = run.seen()
    assert "round 1: evolve" in seen and "20/100 calls" in seen
    assert "speed 2.0 calls/s, 6,000 tokens/min" in seen
    assert "calls 7 in flight, 2 held back, 3 retries" in seen
    assert "taken 1,000 tokens of 100,000, 1.00 of 50.00 USD" in seen
    assert "left 40 s of this phase, at most 4.0 min of the run" in seen, "(80 + 100 + 300) calls at 2/s"


def test_speed_is_that_of_the_last_30_seconds_and_falls_while_nothing_comes():
    run = Run()
    with run.view.watch("round 2: judge", 10_000) as advance:
        for _ in range(100):
            run.answer(advance, 1.0, count=10)
        for _ in range(40):
            run.answer(advance, 1.0)
        assert run.seen().count("1.0 calls/s") == 1
        run.clock.now += 30
        assert "0.5 calls/s" in run.seen()
    assert "of the run" not in run.seen(), "without a plan nothing is said of the run"


def test_what_an_earlier_run_has_answered_counts_as_done_and_not_as_speed():
    run = Run(PLAN)
    with run.view.watch("round 1: evolve", 100, known=60) as advance:
        assert "60/100 calls" in run.seen() and "left not known yet" in run.seen()
        run.answer(advance, 10.0, count=20)
        seen = run.seen()
    assert "80/100 calls" in seen and "speed 2.0 calls/s" in seen and "left 10 s of this phase" in seen


def test_a_log_has_a_line_with_all_of_it(capsys: pytest.CaptureFixture):
    run = Run(PLAN)
    with run.view.watch("round 1: judge", 4) as advance:
        run.activity.in_flight = 3
        run.answer(advance, 2.0, count=4)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("round 1: judge: 4/4 calls")
    assert last.endswith(
        "2.0 calls/s, 6,000 tokens/min, 3 in flight, 0 retries, 200 tokens, 0.20 USD, at most 2.5 min of the run"
    )


def test_a_terminal_is_drawn_upon_and_keeps_one_line_of_a_phase(capsys: pytest.CaptureFixture):
    run = Run(PLAN)
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    with run.view.watch("round 1: evolve", 2, terminal=terminal) as advance:
        run.answer(advance, 4.0, count=2)
    drawn = terminal.file.getvalue()
    assert "2/2 calls" in drawn and "0.5 calls/s" in drawn
    assert capsys.readouterr().err == "round 1: evolve: 2/2 calls in 4 s, 100 tokens, 0.10 USD\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2.0 min"), (7200, "2.0 h"), (200_000, "2.3 days")]
)
def test_a_time_has_the_unit_that_suits_it(seconds: float, text: str):
    assert span(seconds) == text
