"""Extraction gives back what was published, and finds code however a model wraps it."""

import pytest

from jaxwiz.problems.extract import extract
from jaxwiz.problems.humaneval import load_humaneval
from jaxwiz.problems.problem import Kind, Problem
from tests.shared_data import shared_rows

ADD = Problem("T/0", 'def add(a, b):\n    """Adds."""\n', "", "add", "    return a + b\n")
CODE = "def add(a, b):\n    return a + b\n"


def test_published_texts_give_the_published_completions() -> None:
    problems = load_humaneval()
    rows = shared_rows("wizardcoder-33b-v1.1-humaneval-vllm.jsonl.gz")
    assert len(rows) == 164
    for row in rows:
        assert extract(row["all_code"], problems[row["task_id"]], "wizardcoder") == row["completion"], row["task_id"]


@pytest.mark.parametrize(
    ("raw", "completion"),
    [
        ("Sure:\n```python\nx = 1\n```\nDone.", "x = 1"),
        ("```python\nx = 1\n", "\nx = 1"),  # a fence left open is not stripped
        ("```\nx = 1\n```", "```\nx = 1\n```"),  # nor is a fence without a language seen
        ("```python\nx = 1\n```\n```python\ny = 2\n```", "x = 1"),
        ("def f():\r\n\treturn 1 ", "def f():\n    return 1 "),
        ('x = 1\nif __name__ == "__main__":\n    f()', "x = 1"),
        ("x = 1\nif __name__ == '__main__':\n    f()", "x = 1\nif __name__ == '__main__':\n    f()"),
        ("x = 1\n# Example usage:\nf()", "x = 1"),
        ("Below is\n### Response:\n```python\nx = 1\n```", "x = 1"),  # the prompt before the answer
    ],
)
def test_wizardcoder_keeps_its_bugs(raw: str, completion: str) -> None:
    assert extract(raw, ADD, "wizardcoder") == completion


@pytest.mark.parametrize(
    ("raw", "kind", "completion"),
    [
        ("x = '```'\n# Test examples\nf()", "mbpp", "x = '```'"),
        ("```python\nx = '```'\n```\nDone.", "mbpp", "x = '```'"),
        ("```python\nx = '```'\n```\nDone.", "humaneval", "x = '"),
        ("x = 1\nassert x", "mbpp", "x = 1\nassert x"),
        ("x = 1\nassert x", "mbpp_plus", "x = 1"),
        ("x = 1\n# Test examples", "mbpp_plus", "x = 1\n# Test examples"),
    ],
)
def test_wizardcoder_has_a_script_for_each_benchmark(raw: str, kind: Kind, completion: str) -> None:
    assert extract(raw, Problem("T/0", "", "", "f", "", kind=kind), "wizardcoder") == completion


@pytest.mark.parametrize(
    ("raw", "completion"),
    [
        (f"```python\n{CODE}```", CODE),
        (f"```py\n{CODE}```", CODE),
        (f"```\n{CODE}```", CODE),
        (f"~~~Python3\n{CODE}~~~", CODE),
        (f"Here it is:\n\n```python\n{CODE}", CODE),  # cut off before the fence closed
        (f"First\n```bash\npip install x\n```\nthen\n```python\n{CODE}```", CODE),
        (f"```python\nadd(1, 2)\n```\nwith\n```python\n{CODE}```", CODE),
        (f"```python\n{CODE}```".replace("\n", "\r\n"), CODE),
        (f"The function adds.\n\n{CODE}\nThis returns the sum, as asked.", CODE + "\n"),
        (CODE, CODE + "\n"),
        ("    return a + b\n", "    return a + b\n"),
        ("```python\n    return a + b\n```", "    return a + b\n"),
        (f"```python\n{CODE}print('unclosed\n```", CODE),
        (f"1. Like this: ```python\n{CODE}```", CODE),
        (f'```python title="a.py" linenums=1\n{CODE}```', CODE),
        (f"````markdown\n{CODE}````", CODE),
        ("- So:\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n", CODE),
        ("```python\ndef add(a, b):\n    return a + b```", CODE),
        ("   def add(a, b):\n       return a + b\n", CODE + "\n"),
        ("return a + b", "    return a + b"),
        ("```python\nreturn a + b\n```", "    return a + b\n"),
        ("```python\nimport math\n```\nand\n```python\n" + CODE + "```", "import math\n" + CODE),
        ("```python\nadd(1, 2)\nprint(3)\n```\nand\n```python\n" + CODE + "```", CODE),
        (f"First try:\n```python\ndef add(a, b:\n```\nbetter:\n```python\n{CODE}```", CODE),
        ("I cannot do that.", "I cannot do that."),
        ("", ""),
    ],
)
def test_robust_finds_the_function(raw: str, completion: str) -> None:
    assert extract(raw, ADD, "robust") == completion


def test_completion_ends_with_the_function() -> None:
    raw = "    if a:\n        return a + b\n\n    return b\n\n\ndef other():\n    pass\nprint(add(1, 2))"
    assert extract(raw, ADD, "completion") == "    if a:\n        return a + b\n\n    return b\n\n"
    assert extract("    return a + b", ADD, "completion") == "    return a + b"


def test_completion_of_a_whole_program_may_define_and_import() -> None:
    problem = Problem("Mbpp/11", '"""\ntext\n"""\n', "", "f", "", kind="mbpp")
    raw = "import math\ndef g():\n    pass\ndef f():\n    return g()\nprint(f())\nassert f() is None\n"
    assert extract(raw, problem, "completion") == raw[: raw.index("\nprint")]
