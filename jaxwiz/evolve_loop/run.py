"""`jaxwiz evolve-loop LOOP.yaml`: rounds, until one scores below the best.

Round k's set is what k rounds of evolution make of the seeds, from the one journal that all rounds share: nothing that
an earlier round asked is asked again, and the journal alone makes every round's set again. Each step runs in a process
of its own and is skipped where it is finished, so a loop that was killed goes on where it was. Scores are read from the
rounds' reports; loop.json, summary.txt and the link `best` are written again after every round.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxwiz import __version__, files
from jaxwiz.console import say
from jaxwiz.evolve_loop.config import BEST, LoopConfig
from jaxwiz.evolve_loop.development import load_development
from jaxwiz.evolve_loop.rounds import Loop, round_folder
from jaxwiz.pipeline import Step, require_inputs, run_steps
from jaxwiz.problems.problem import Benchmark

SCHEMA = "jaxwiz.evolve_loop.v1"


@dataclasses.dataclass(frozen=True)
class RoundScore:
    """What came out of a round.

    Attributes:
      round: its number; 0: the seeds alone.
      rows: of its set, seeds and evolutions.
      pass_at_1: on the development set, in [0, 1].
      low: where the 95% interval of `pass_at_1` begins.
      high: where it ends.
    """

    round: int
    rows: int
    pass_at_1: float
    low: float
    high: float


def run_loop(loop: Loop) -> int:
    """Runs rounds until the score falls, and returns 0; or the exit code of the step that failed.

    Raises:
      ConfigError: the development set overlaps a reported benchmark, or an input is missing; nothing has been run.
    """
    config = loop.config
    development = load_development(config)
    first = next(iter(loop.rounds.values()))
    require_inputs(config.out, [*loop.once, *first])
    code = run_steps(loop.once, config.out / "configs")
    scores: list[RoundScore] = []
    for number, steps in loop.rounds.items():
        if code:
            return code
        code = run_steps(steps, config.out / "configs" / f"round-{number}", f"round {number} ")
        if code:
            return code
        scores.append(read_score(number, steps))
        best, is_over = decide([one.pass_at_1 for one in scores], config.patience)
        ended = "decline" if is_over else "rounds" if number == config.rounds else ""
        _write(config, development, scores, best, ended)
        say(f"round {number}: {scores[-1].pass_at_1:.1%} on {development.name}; best is round {scores[best].round}")
        if is_over:
            break
    print((config.out / "summary.txt").read_text(encoding="utf-8"), end="")
    return 0


def decide(scores: Sequence[float], patience: int) -> tuple[int, bool]:
    """Returns the place of the best score, the first of equal ones, and whether to stop.

    Args:
      scores: of the rounds so far, one at least.
      patience: so many scores in a row, below the best before them, are a decline.
    """
    best = max(range(len(scores)), key=lambda place: (scores[place], -place))
    below = 0
    for score in scores[best + 1 :]:
        below = below + 1 if score < scores[best] else 0
    return best, below >= patience


def read_score(number: int, steps: Sequence[Step]) -> RoundScore:
    """Returns what a finished round's files say."""
    outs = {stage.name: config.out for _, stage, config in steps}
    report = json.loads((outs["evaluate"] / "report.json").read_text(encoding="utf-8"))
    statistics = json.loads((outs["evolve"] / "statistics.json").read_text(encoding="utf-8"))
    (system,) = report["systems"].values()
    score = system["pass_at"]["1"]
    rows = statistics["seeds"]["kept"] + sum(one["kept"] for one in statistics["rounds"])
    return RoundScore(number, rows, score["value"], score["low"], score["high"])


def describe(loop: Loop) -> str:
    """Returns what the loop would run, for people.

    Raises:
      ConfigError: the development set overlaps a reported benchmark, or an input is missing.
    """
    development = load_development(loop.config)
    first = next(iter(loop.rounds.values()))
    require_inputs(loop.config.out, [*loop.once, *first])
    reported = ", ".join(one.kind for one in loop.config.reported)
    lines = [
        f"development set: {development.name}, {len(development.problems)} tasks, none of them of {reported}",
        f"once: {_names(loop.once) or 'nothing'}",
        *(f"round {number}: {_names(steps)}" for number, steps in loop.rounds.items()),
        f"stops after {loop.config.patience} round(s) in a row below the best",
    ]
    return "\n".join(lines) + "\n"


def _names(steps: Sequence[Step]) -> str:
    return " -> ".join(f"{name} ({stage.name})" for name, stage, _ in steps)


def _write(config: LoopConfig, development: Benchmark, scores: Sequence[RoundScore], best: int, ended: str) -> None:
    folder = round_folder(config, scores[best].round)
    described: dict[str, Any] = {
        "schema": SCHEMA,
        "jaxwiz": __version__,
        "development": {
            "name": development.name,
            "version": development.version,
            "sha256": development.sha256,
            "tasks": list(development.problems),
        },
        "reported": [one.kind for one in config.reported],
        "rounds": [dataclasses.asdict(one) for one in scores],
        "best": scores[best].round,
        "ended": ended,
    }
    files.point_to(config.out / BEST, folder.name)
    files.write_text(config.out / "loop.json", json.dumps(described, indent=1) + "\n")
    files.write_text(config.out / "summary.txt", _summary(config, development, scores, best, ended))


def _summary(config: LoopConfig, development: Benchmark, scores: Sequence[RoundScore], best: int, ended: str) -> str:
    lines = [
        f"development set: {development.name}, {len(development.problems)} tasks",
        f"{'round':>5} {'rows':>8} {'pass@1':>7}  95% interval",
    ]
    for place, one in enumerate(scores):
        marked = "  best" if place == best else ""
        lines.append(f"{one.round:>5} {one.rows:>8} {one.pass_at_1:>7.1%}  {one.low:.1%} to {one.high:.1%}{marked}")
    reasons = {
        "decline": f"ended: {config.patience} round(s) in a row below round {scores[best].round}",
        "rounds": f"ended: all {config.rounds} rounds are done",
        "": "not ended yet",
    }
    return "\n".join([*lines, reasons[ended], f"best: {Path(config.out) / BEST}"]) + "\n"
