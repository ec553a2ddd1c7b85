"""Finds benchmark tasks inside training text.

Four tests of growing looseness, each on text that is NFKC-normalised, lower case and single-spaced: a benchmark text
of 40 or more characters contained whole (a shorter one: equal); a run of 10 words in common; half of a benchmark text's
runs of 8 words present; the tested function's name together with one of its documented example calls or values. It does
not run anything: executing the training answer against the benchmark's tests is the strongest test and needs a sandbox.
"""

import dataclasses
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

SUBSTRING_FROM_CHARACTERS = 40
COMMON_RUN_WORDS = 10
COVERED_RUN_WORDS = 8
COVERED_FRACTION = 0.5
# "True" or "[]" beside a common function name proves nothing.
EXAMPLE_FROM_CHARACTERS = 6

_WORD = re.compile(r"\w+")
_DOCSTRING = re.compile(r'("""|\'\'\')(.*?)\1', re.DOTALL)
_DOCTEST = re.compile(r"^[ \t]*>>>[ \t]*(.+)\n[ \t]*(?!>>>|\"\"\"|''')(\S.*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class BenchmarkItem:
    """One benchmark task as plain text.

    Attributes:
      task_id: its name, for reports.
      prompt: what a model is given; docstrings in it are searched for on their own as well.
      solution: the reference solution.
      entry_point: name of the tested function; empty: none.
    """

    task_id: str
    prompt: str
    solution: str
    entry_point: str = ""


@dataclasses.dataclass(frozen=True)
class Hit:
    """A benchmark task found in a text.

    Attributes:
      task_id: which task.
      test: what found it: "substring", "equal", "common_run", "covered_runs" or "name_and_example".
    """

    task_id: str
    test: str


class Decontaminator:
    """An index of benchmark tasks; build it once, ask it for every text."""

    def __init__(self, items: Iterable[BenchmarkItem]) -> None:
        self._long_texts: dict[str, str] = {}  # text -> task
        self._short_texts: dict[str, str] = {}
        self._common_runs: dict[str, str] = {}  # run -> task
        self._covered_runs: dict[str, set[int]] = defaultdict(set)  # run -> numbers of texts that hold it
        self._covered_texts: list[tuple[str, int]] = []  # by number: task, its count of distinct runs
        self._examples: list[tuple[str, re.Pattern[str], list[str]]] = []  # task, name, example texts
        for item in items:
            for text in _texts_of(item):
                self._add_text(item.task_id, text)
            if item.entry_point:
                name = re.compile(rf"\b{re.escape(item.entry_point.lower())}\b")
                self._examples.append((item.task_id, name, _examples_of(item)))

    def find(self, *texts: str) -> Hit | None:
        """Returns the first benchmark task found in `texts` taken together or in one of them, or None."""
        together = normalise("\n".join(texts))
        for text, task_id in self._long_texts.items():
            if text in together:
                return Hit(task_id, "substring")
        for text in texts:
            if (task := self._short_texts.get(normalise(text))) is not None:
                return Hit(task, "equal")
        words = _WORD.findall(together)
        for run in _runs(words, COMMON_RUN_WORDS):
            if run in self._common_runs:
                return Hit(self._common_runs[run], "common_run")
        return self._find_covered(words) or self._find_example(together)

    def _add_text(self, task_id: str, text: str) -> None:
        normal = normalise(text)
        if not normal:
            return
        texts = self._long_texts if len(normal) >= SUBSTRING_FROM_CHARACTERS else self._short_texts
        texts.setdefault(normal, task_id)
        words = _WORD.findall(normal)
        for run in _runs(words, COMMON_RUN_WORDS):
            self._common_runs.setdefault(run, task_id)
        runs = set(_runs(words, COVERED_RUN_WORDS))
        if runs:
            for run in runs:
                self._covered_runs[run].add(len(self._covered_texts))
            self._covered_texts.append((task_id, len(runs)))

    def _find_covered(self, words: list[str]) -> Hit | None:
        covered: dict[int, int] = defaultdict(int)
        for run in set(_runs(words, COVERED_RUN_WORDS)):
            for number in self._covered_runs.get(run, ()):
                covered[number] += 1
        for number, count in sorted(covered.items()):
            task_id, total = self._covered_texts[number]
            if count >= COVERED_FRACTION * total:
                return Hit(task_id, "covered_runs")
        return None

    def _find_example(self, text: str) -> Hit | None:
        for task_id, name, examples in self._examples:
            if name.search(text) and any(example in text for example in examples):
                return Hit(task_id, "name_and_example")
        return None


def normalise(text: str) -> str:
    """Returns `text` NFKC-normalised, in lower case, with every run of white space made one space."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def _texts_of(item: BenchmarkItem) -> list[str]:
    docstrings = [match.group(2) for match in _DOCSTRING.finditer(item.prompt)]
    prose = [_DOCTEST.sub("", docstring) for docstring in docstrings]
    return [item.prompt, *docstrings, *prose, item.solution]


def _examples_of(item: BenchmarkItem) -> list[str]:
    """Returns the arguments and values of the task's doctests that are long enough to prove something."""
    found = []
    for match in _DOCTEST.finditer(item.prompt):
        call, value = match.groups()
        arguments = call.strip().partition("(")[2].removesuffix(")")
        found += [normalise(arguments), normalise(value)]
    return [text for text in found if len(text) >= EXAMPLE_FROM_CHARACTERS]


def _runs(words: list[str], length: int) -> list[str]:
    return [" ".join(words[start : start + length]) for start in range(len(words) - length + 1)]
