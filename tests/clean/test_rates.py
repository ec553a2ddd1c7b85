"""On real data: what is planted is caught, and of clean rows hardly any is.

The clean rows are those of Code Alpaca's first 2,017 that are not in SAME_TASK: rows that, read by a person beside the
benchmark's task, ask for the same and answer it. Of the others none was found to.
"""

import ast
import builtins
import json
import textwrap

import pytest

from jaxwiz.clean.config import Tier
from jaxwiz.clean.decontaminate import Decontaminator, Hit
from jaxwiz.clean.execute import Executor
from jaxwiz.clean.tasks import Task, load_tasks
from jaxwiz.clean.texts import Text
from jaxwiz.problems.config import HumanEvalConfig, HumanEvalPlusConfig, MbppConfig, MbppPlusConfig
from tests.shared_data import shared_file

# Row number of code_alpaca_2k.json: the task that it asks for and answers.
SAME_TASK: dict[int, str] = {
    **dict.fromkeys(
        (
            149,
            235,
            520,
            791,
            1027,
            1984,
        ),
        "HumanEval/47",
    ),
    **dict.fromkeys(
        (
            158,
            1153,
        ),
        "Mbpp/204",
    ),
    **dict.fromkeys(
        (
            251,
            605,
            808,
            1117,
            1259,
            1451,
            1453,
            1742,
            1842,
            1965,
        ),
        "HumanEval/31",
    ),
    **dict.fromkeys((260,), "HumanEval/60"),
    **dict.fromkeys(
        (
            391,
            1845,
        ),
        "Mbpp/309",
    ),
    **dict.fromkeys(
        (
            468,
            577,
            1180,
        ),
        "HumanEval/55",
    ),
    **dict.fromkeys(
        (
            512,
            706,
            1121,
            1255,
        ),
        "HumanEval/35",
    ),
    **dict.fromkeys(
        (
            549,
            827,
            891,
            894,
            906,
            1149,
            1257,
            1332,
            1626,
        ),
        "HumanEval/48",
    ),
    **dict.fromkeys((600,), "Mbpp/365"),
    **dict.fromkeys(
        (
            709,
            800,
            1732,
        ),
        "HumanEval/13",
    ),
    **dict.fromkeys(
        (
            803,
            1967,
        ),
        "Mbpp/566",
    ),
    **dict.fromkeys(
        (
            822,
            1711,
        ),
        "Mbpp/728",
    ),
    **dict.fromkeys(
        (
            1014,
            1267,
        ),
        "HumanEval/53",
    ),
    **dict.fromkeys(
        (
            1146,
            1428,
        ),
        "Mbpp/62",
    ),
    **dict.fromkeys((1173,), "Mbpp/374"),
    **dict.fromkeys(
        (
            1203,
            1594,
        ),
        "Mbpp/798",
    ),
    **dict.fromkeys((1480,), "HumanEval/61"),
    **dict.fromkeys((1588,), "Mbpp/93"),
    **dict.fromkeys((1733,), "Mbpp/352"),
    **dict.fromkeys((1964,), "Mbpp/629"),
}


@pytest.fixture(scope="module")
def real_tasks() -> list[Task]:
    return load_tasks(
        [
            HumanEvalConfig(),
            MbppConfig(path=shared_file("mbpp-test.jsonl.gz")),
            HumanEvalPlusConfig(path=shared_file("HumanEvalPlus-v0.1.10.jsonl.gz")),
            MbppPlusConfig(path=shared_file("MbppPlus-v0.2.0.jsonl.gz")),
        ]
    )[1]


@pytest.fixture(scope="module")
def index(real_tasks: list[Task]) -> Decontaminator:
    return Decontaminator(real_tasks)


def alpaca_rows() -> list[Text]:
    rows = json.loads(shared_file("code_alpaca_2k.json").read_text(encoding="utf-8"))
    return [
        Text(str(number), f"{row['instruction']}\n{row['input']}", row["output"]) for number, row in enumerate(rows)
    ]


def test_all_tasks_are_there(real_tasks: list[Task]):
    assert len(real_tasks) == 818  # 164, 500, and 154 of MBPP+ that MBPP's test split lacks


def verbatim(task: Task) -> Text:
    return Text("planted", task.questions[0], task.solution)


def recased(task: Task) -> Text:
    return Text("planted", f"Please do this. {task.questions[0].upper()}", "Done.")


def rewrapped(task: Task) -> Text:
    return Text("planted", "Solve:\n" + textwrap.fill(" ".join(task.questions[0].split()), 30), "Sure.")


def solution_in_prose(task: Task) -> Text:
    return Text("planted", "Do it.", f"Sure:\n```python\n{task.solution}\n```\nThat is all.")


def half_quoted(task: Task) -> Text:
    words = task.description.split()
    half = " ".join(words[: len(words) // 2 + 1])
    return Text("planted", f"Consider the following. {half} and then go on as you like.", "Done.")


def named_with_example(task: Task) -> Text:
    return Text("planted", f"Write {task.entry_point}() such that {max(task.examples, key=len)} works.", "Done.")


def long_description(task: Task) -> bool:
    return len(task.description.split()) >= 20  # half of it has a run of ten words


def telling_example(task: Task) -> bool:
    return max((len(example.replace(" ", "")) for example in task.examples), default=0) >= 6


@pytest.mark.parametrize(
    ("plant", "applies", "tiers", "least"),
    [
        (verbatim, None, {"equal"}, 1.0),
        (recased, lambda task: len(task.questions[0].strip()) >= 40, {"contained"}, 1.0),
        (rewrapped, lambda task: len(task.questions[0].strip()) >= 40, {"contained", "runs"}, 1.0),
        (solution_in_prose, lambda task: len(" ".join(task.solution.split())) >= 40, {"contained"}, 1.0),
        (half_quoted, long_description, {"runs"}, 0.95),
        (named_with_example, telling_example, {"example", "runs"}, 0.99),
    ],
)
def test_planted_texts_are_caught_by_the_tier_that_claims_them(
    real_tasks: list[Task], index: Decontaminator, plant, applies, tiers: set[Tier], least: float
):
    asked = [task for task in real_tasks if applies is None or applies(task)]
    hits = [index.find(plant(task)) for task in asked]
    caught = [hit for hit in hits if hit is not None and hit.tier in tiers]
    assert len(asked) > 190 and len(caught) >= least * len(asked)


def test_texts_of_clean_rows_pass(index: Decontaminator):
    rows = [row for number, row in enumerate(alpaca_rows()) if number not in SAME_TASK]
    flagged = [row.key for row in rows if index.find(row)]
    assert len(rows) > 1900 and len(flagged) <= 0.002 * len(rows)


@pytest.mark.parity
def test_of_clean_rows_at_most_half_a_percent_is_flagged_by_all_tiers(real_tasks: list[Task], index: Decontaminator):
    rows = alpaca_rows()
    hits: dict[int, Hit] = {number: hit for number, row in enumerate(rows) if (hit := index.find(row))}
    hits |= Executor(real_tasks, 1.0, None, False).run(rows).hits
    for start in range(0, len(rows) - 1000, 250):
        chosen = [number for number in range(start, len(rows)) if number not in SAME_TASK][:1000]
        assert sum(number in hits for number in chosen) <= 5, start
    found = [number for number, task_id in SAME_TASK.items() if number in hits]
    assert len(found) >= 0.9 * len(SAME_TASK)


@pytest.mark.parity
def test_solutions_with_other_names_are_caught_by_running_them(real_tasks: list[Task], index: Decontaminator):
    rows = [Text(task.task_id, "Answer.", renamed(task.solution)) for task in real_tasks[::4]]
    found = Executor(real_tasks, 1.0, None, False).run(rows)
    trivial = {one.key for one in found.passes if one.why == "trivial" and one.key == one.task_id}
    asked = [number for number, row in enumerate(rows) if row.key not in trivial]
    assert sum(number in found.hits for number in asked) >= 0.95 * len(asked)


class _Renamer(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self.names.get(node.arg, node.arg))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.name, node.returns = self.names.get(node.name, node.name), None
        documented = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
        node.body = node.body[1:] if documented and len(node.body) > 1 else node.body
        return node


def renamed(program: str) -> str:
    """Returns a program with other names for all that it defines, and without docstrings."""
    tree = ast.parse(program)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        own = node.arg if isinstance(node, ast.arg) else node.name if isinstance(node, ast.FunctionDef) else None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own = node.id
        if own and not hasattr(builtins, own):
            names.setdefault(own, f"thing{len(names)}")
    return ast.unparse(_Renamer(names).visit(tree))
