"""Finds benchmark tasks inside a training row by its text: four tiers, the fifth (running answers) is in execute.py.

All on text that is NFKC-normalised, lower case and single-spaced:

    equal      instruction or answer is, as a whole, a question or a solution; a solution only from 40 characters on
    contained  a text of 40 or more characters stands within the row
    runs       10 words in a row in common, of which some are of the matter; or half of a text's runs of
               8 words, 3 at least: "write a function to check whether the given string is" proves nothing
    example    the tested function's name, used as a function's, and a documented argument or value, spaces aside
"""

import builtins
import dataclasses
import keyword
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from jaxwiz.clean.config import TIERS, Tier
from jaxwiz.clean.tasks import Task
from jaxwiz.clean.texts import Text, normalise, words_of

CONTAINED_FROM_CHARACTERS = 40
COMMON_RUN_WORDS = 10
COVERED_RUN_WORDS = 8
COVERED_FRACTION = 0.5
FEWEST_COVERED_RUNS = 3  # of shorter texts all
FEWEST_SOLUTION_RUNS = 12  # programs as short as a loop with a condition are everybody's
# Different words of its own that a run must have to prove anything: a program's are mostly everybody's.
QUESTION_WORDS, SOLUTION_WORDS = 1, 4
# "True" or "[]" beside a common function name proves nothing.
EXAMPLE_FROM_CHARACTERS = 6

_ANCHOR_WORDS = 3
_PYTHON = {word.lower() for word in [*keyword.kwlist, *dir(builtins), "self"]}
_PHRASES = frozenset(
    words_of(  # that tasks are put in
        "write create implement python program code function method task find get given takes take returns return "
        "check checks whether count number numbers string strings character characters word words array arrays list "
        "lists element elements item items value values integer integers digit digits input output zero one two three "
        "four five six seven eight nine ten first second the all any are each from into its not than that their them "
        "then there this using where which will with without you your should must has have contains same only"
    )
)


@dataclasses.dataclass(frozen=True)
class Hit:
    """A benchmark task found in a row.

    Attributes:
      task_id: which task.
      tier: what found it.
      detail: what was found.
    """

    task_id: str
    tier: Tier
    detail: str


class Decontaminator:
    """An index of benchmark tasks; build it once, ask it for every row."""

    def __init__(self, tasks: Iterable[Task], tiers: Collection[Tier] = TIERS) -> None:
        self._tiers = tiers
        self._whole: dict[str, str] = {}  # text -> task
        self._long: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)  # inner words -> (text, task)
        self._common_runs: dict[str, str] = {}  # run -> task
        self._covered_runs: dict[str, set[int]] = defaultdict(set)  # run -> numbers of texts that hold it
        self._covered_texts: list[tuple[str, int]] = []  # by number: task, its count of distinct runs
        self._examples: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)  # name -> (task, examples)
        for task in tasks:
            for text in task.questions:
                self._add_text(task.task_id, normalise(text), 1, 1, QUESTION_WORDS)
            for text in task.solution_texts:
                self._add_text(
                    task.task_id, normalise(text), CONTAINED_FROM_CHARACTERS, FEWEST_SOLUTION_RUNS, SOLUTION_WORDS
                )
            examples = [_compact(normalise(example)) for example in task.examples]
            telling = [example for example in examples if len(example) >= EXAMPLE_FROM_CHARACTERS]
            self._examples[task.entry_point.lower()].append((task.task_id, telling))
        self._anchor_lengths = sorted({len(anchor) for anchor in self._long})
        runs = (*self._common_runs, *self._covered_runs)
        self._run_starts = {tuple(run.split(" ", _ANCHOR_WORDS)[:_ANCHOR_WORDS]) for run in runs}

    def find(self, row: Text) -> Hit | None:
        """Returns the first benchmark task that a tier finds in a row, tiers in their order, or None."""
        parts = (normalise(row.instruction), normalise(row.answer))
        together = " ".join(parts)
        words = words_of(together)
        searches = {
            "equal": lambda: self._find_equal((*parts, together)),
            "contained": lambda: self._find_contained(together, words),
            "runs": lambda: self._find_run(words),
            "example": lambda: self._find_example(together, words),
        }
        hits = (search() for tier, search in searches.items() if tier in self._tiers)
        return next((hit for hit in hits if hit is not None), None)

    def _add_text(self, task_id: str, normal: str, shortest_whole: int, fewest_runs: int, own_words: int) -> None:
        if len(normal) >= shortest_whole:
            self._whole.setdefault(normal, task_id)
        words = words_of(normal)
        if len(normal) >= CONTAINED_FROM_CHARACTERS:
            # The first and the last word may be parts of longer ones where the text stands within another.
            self._long[tuple(words[1:-1][:_ANCHOR_WORDS])].append((normal, task_id))
        for run in _runs(words, COMMON_RUN_WORDS):
            if _own_words(run) >= own_words:
                self._common_runs.setdefault(" ".join(run), task_id)
        runs = {" ".join(run) for run in _runs(words, COVERED_RUN_WORDS) if _is_worded(run)}
        if len(runs) >= fewest_runs:
            for text in runs:
                self._covered_runs[text].add(len(self._covered_texts))
            self._covered_texts.append((task_id, len(runs)))

    def _find_equal(self, texts: Sequence[str]) -> Hit | None:
        for text in texts:
            if (task_id := self._whole.get(text)) is not None:
                return Hit(task_id, "equal", f"the whole text: {_cut(text)}")
        return None

    def _find_contained(self, together: str, words: list[str]) -> Hit | None:
        anchors = {
            tuple(words[start : start + length])
            for length in self._anchor_lengths
            for start in range(len(words) - length + 1)
        }
        found = [
            (task_id, text)
            for anchor in anchors & self._long.keys()
            for text, task_id in self._long[anchor]
            if text in together
        ]
        if not found:
            return None
        task_id, text = max(found, key=lambda pair: (len(pair[1]), pair))
        return Hit(task_id, "contained", f"stands within: {_cut(text)}")

    def _find_run(self, words: list[str]) -> Hit | None:
        """Looks only where a run of the index may begin, by its first words: elsewhere nothing needs to be joined."""
        starts = [
            start for start in range(len(words)) if tuple(words[start : start + _ANCHOR_WORDS]) in self._run_starts
        ]
        return self._find_common_run(words, starts) or self._find_covered(words, starts)

    def _find_common_run(self, words: list[str], starts: list[int]) -> Hit | None:
        for start in starts:
            text = " ".join(words[start : start + COMMON_RUN_WORDS])
            if text in self._common_runs:
                return Hit(self._common_runs[text], "runs", f"{COMMON_RUN_WORDS} words in common: {text}")
        return None

    def _find_covered(self, words: list[str], starts: list[int]) -> Hit | None:
        covered: dict[int, int] = defaultdict(int)
        for run in {" ".join(words[start : start + COVERED_RUN_WORDS]) for start in starts}:
            for number in self._covered_runs.get(run, ()):
                covered[number] += 1
        for number, count in sorted(covered.items()):
            task_id, total = self._covered_texts[number]
            if count >= max(COVERED_FRACTION * total, min(FEWEST_COVERED_RUNS, total)):
                detail = f"{count} of a text's {total} runs of {COVERED_RUN_WORDS} words in common"
                return Hit(task_id, "runs", detail)
        return None

    def _find_example(self, together: str, words: list[str]) -> Hit | None:
        names = sorted(set(words) & self._examples.keys())
        if not names:
            return None
        compact = _compact(together)
        for name in names:
            if not _as_function(name).search(together):
                continue
            for task_id, examples in self._examples[name]:
                for example in examples:
                    if example in compact:
                        return Hit(task_id, "example", f"the name {name} and its example {_cut(example)}")
        return None


def _runs(words: list[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]


def _own_words(run: tuple[str, ...]) -> int:
    """Returns how many words of its matter a run has: no numbers, short names, Python's words or phrases."""
    return len({word for word in run if len(word) > 2 and word.isalpha()} - _PYTHON - _PHRASES)


def _is_worded(run: tuple[str, ...]) -> bool:
    """Returns whether at least half of a run are words, not numbers: "1, 2, 3, 4, 5, 6, 7, 8" is nobody's own."""
    return 2 * sum(not word.isdigit() for word in run) >= len(run)


def _as_function(name: str) -> re.Pattern[str]:
    """Returns what finds a name used as a function's: called, or, if it is no plain word, named in prose."""
    called = rf"(?<![.\w]){re.escape(name)}\s*\("
    if name.isalpha():
        return re.compile(called)
    return re.compile(rf"{called}|(?<![.\w]){re.escape(name)}\b(?!\s*(?:[=\[,)]|\.\w|in\b))")


def _compact(normal: str) -> str:
    return normal.replace(" ", "").replace('"', "'")


def _cut(text: str, length: int = 200) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
