"""Extraction gives back what was published, and finds code however a model wraps it."""

import gzip
import json
from pathlib import Path

import pytest

from jaxwiz.problems.extract import extract
from jaxwiz.problems.humaneval import Problem, load_humaneval

PUBLISHED = Path(__file__).resolve().parents[3] / "shared/data/wizardcoder-33b-v1.1-humaneval-vllm.jsonl.gz"

ADD = Problem("T/0", 'def add(a, b):\n    """Adds."""\n', "", "add", "    return a + b\n")
CODE = "def add(a, b):\n    return a + b\n"


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"needs ../shared/data/{PUBLISHED.name}")
def test_published_texts_give_the_published_completions() -> None:
    problems = load_humaneval()
    rows = [json.loads(line) for line in gzip.decompress(PUBLISHED.read_bytes()).splitlines()]
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
    ],
)
def test_wizardcoder_keeps_its_bugs(raw: str, completion: str) -> None:
    assert extract(raw, ADD, "wizardcoder") == completion


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
