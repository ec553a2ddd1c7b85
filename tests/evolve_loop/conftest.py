"""A loop over made benchmarks, in which the evolve step is real, and the others only leave what the loop reads."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from jaxwiz.evolve import run as evolve_stage
from jaxwiz.evolve_loop import run as loop_run
from jaxwiz.pipeline import Step
from jaxwiz.stages import STAGES
from jaxwiz.step import run_step
from tests.clean.made import clean_config
from tests.evolve.fakes import OPERATIONS, FakeGenerator, write_seeds

DEVELOPMENT = [
    {
        "task_id": f"Own/{number}",
        "prompt": f'def {name}(text: str) -> str:\n    """ {asked}\n    """\n',
        "canonical_solution": f"    return {solution}\n",
        "test": f"def check(candidate):\n    assert candidate('ab cd') == {wanted!r}\n",
        "entry_point": name,
    }
    for number, (name, asked, solution, wanted) in enumerate(
        (
            ("mirror_words", "Mirror each word of a sentence where it stands.", "text[::-1]", "ba dc"),
            ("shout", "Return the sentence in capitals, for those who are hard of hearing.", "text.upper()", "AB CD"),
        )
    )
]

WriteLoop = Callable[..., Path]


@pytest.fixture
def write_loop(tmp_path: Path) -> WriteLoop:
    """A function (**changes) -> path of a loop's file over seven seeds, made benchmarks and steps that are valid."""

    def write(**changes: Any) -> Path:
        clean_config(tmp_path)
        write_seeds(tmp_path / "seeds.jsonl")
        development = tmp_path / "development.jsonl"
        development.write_text("".join(json.dumps(row) + "\n" for row in DEVELOPMENT))
        reported = [{"kind": name, "path": str(tmp_path / f"{name}.jsonl")} for name in ("humaneval", "mbpp")]
        evolve = {
            "seeds": str(tmp_path / "seeds.jsonl"),
            "generator": {"kind": "replay", "path": str(tmp_path / "seeds.jsonl")},
            "operations": OPERATIONS,
            "calls": {"evolve": {"max_new_tokens": 64}, "answer": {"max_new_tokens": 65}},
            "eliminate": {"decontaminate": []},
        }
        data = {"sources": ["${evolve}/evolved.jsonl"], "tokenizer": "${model}/model", "clean": {"benchmarks": []}}
        loop = {
            "out": str(tmp_path / "loop"),
            "rounds": 4,
            "development": {"kind": "humaneval", "path": str(development)},
            "reported": reported,
            "once": {"model": {"stage": "convert", "set": {"source": {"kind": "hf", "path": str(tmp_path)}}}},
            "round": {
                "evolve": {"stage": "evolve", "set": evolve},
                "data": {"stage": "data", "set": data},
                "train": {
                    "stage": "train",
                    "set": {"dataset": "${data}", "checkpoint": "${model}/model", "steps": 3},
                },
                "sample": {"stage": "sample", "set": {"checkpoint": "${train}/model"}},
                "score": {"stage": "evaluate", "set": {"samples": "${sample}/completions.jsonl"}},
            },
            **changes,
        }
        path = tmp_path / "loop.yaml"
        path.write_text(yaml.safe_dump(loop, sort_keys=False))
        return path

    return write


class Steps:
    """Stands for `run_steps`: evolves, and leaves a report with the next of the scores.

    Attributes:
      ran: (label, step) of all that was run.
      fails: exit code of a step, by (label, step).
    """

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores = scores
        self.ran: list[tuple[str, str]] = []
        self.fails: dict[tuple[str, str], int] = {}
        self.generator = FakeGenerator()

    def __call__(self, steps: Sequence[Step], configs: Path, label: str = "") -> int:
        for name, stage, config in steps:
            self.ran.append((label.strip(), name))
            if code := self.fails.get((label.strip(), name), 0):
                return code
            if stage.name == "evolve":
                run_step(STAGES["evolve"], config)
            if stage.name == "evaluate":
                score = self.scores[int(config.out.parent.name.removeprefix("round-"))]
                found = {"value": score, "low": score - 0.1, "high": score + 0.1}
                config.out.mkdir(parents=True, exist_ok=True)
                (config.out / "report.json").write_text(json.dumps({"systems": {"model": {"pass_at": {"1": found}}}}))
        return 0


@pytest.fixture
def make_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Steps]:
    """A function (*scores) -> the `Steps` that take the place of processes."""

    def make(*scores: float) -> Steps:
        steps = Steps(scores)
        monkeypatch.setattr(loop_run, "run_steps", steps)
        monkeypatch.setattr(evolve_stage, "make_generator", lambda backend, work: steps.generator)
        return steps

    return make
