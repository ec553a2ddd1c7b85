"""Finds benchmark tasks by running: a function in a training answer that passes a task's tests, under whatever name.

Every function of an answer is tried on all tasks that call theirs with as many arguments, in one program of the sandbox
(`screen.py`), tasks first whose words the row has. A pass alone proves little where tests are few: a sort by any method
passes those of "pancake sort", a parity check those of "is a sum of powers of two". So it counts if besides

    the function has the task's own name, or
    it is the reference solution up to its names, and not a mere line or two, or
    the tests say much (assertions and different results together are 10 or more), or
    the row asks for it: it has most of the task's words;

and never if the function is as short as `return x + y`, which anyone would write. Of several tasks the one counts whose
words the row has most of. Passes that don't count are reported.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from jaxwiz.clean import screen
from jaxwiz.clean.answers import Function, functions_of, solution_skeleton
from jaxwiz.clean.decontaminate import Hit
from jaxwiz.clean.tasks import Task
from jaxwiz.clean.texts import Text, words_of
from jaxwiz.problems.shipping import CHECKER, checker_data
from jaxwiz.sandbox import Limits, Outcome, Program, run_programs

STRONG_TESTS = 10
TRIVIAL_SIZE = 7  # of a function: statements and expressions
OWN_SIZE = 9  # from which on a program that another one equals is no accident
MOST_WORDS = 0.8  # share of a task's words that a row must have; common words count half
MOST_RESTARTS = 3  # of a program that a result broke off which can't leave the sandbox
PROGRAM_TIMEOUT_S = 60.0
MEMORY_BYTES = 1 << 30

_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_IDLE = frozenset(
    words_of(
        "write an python function to the of in for from given that is are be and or by with whether it if return this "
        "which as on using use its at than create program code take argument find let"
    )
)
_COMMON = frozenset(
    words_of("number list array string element value input integer character tuple one two first check all any item")
)


_NOT_NONE = f"""
def {screen.NOT_NONE}(*arguments):
    return {screen.FUNCTION}(*arguments) is not None
"""


@dataclasses.dataclass(frozen=True)
class Pass:
    """A function that passes a task's tests, which isn't taken for contamination.

    Attributes:
      key: of its row.
      function: its name.
      task_id: the task.
      why: "trivial", or "no further evidence".
    """

    key: str
    function: str
    task_id: str
    why: str


@dataclasses.dataclass
class Executed:
    """What running the answers of some rows showed.

    Attributes:
      hits: by the row's number among those asked about.
      passes: those that didn't count.
      rows: how many had a function to run.
      functions: how many functions were run.
      unfinished: functions that were not tried on all tasks, since they took too long or broke off.
    """

    hits: dict[int, Hit] = dataclasses.field(default_factory=dict)
    passes: list[Pass] = dataclasses.field(default_factory=list)
    rows: int = 0
    functions: int = 0
    unfinished: int = 0


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A function of a row, and the tasks to try it on, most alike first."""

    row: int
    function: Function
    words: frozenset[str]
    tasks: Sequence[Task]


class Executor:
    """Runs answers against the tests of some tasks; build it once."""

    def __init__(
        self, tasks: Sequence[Task], call_timeout_s: float, workers: int | None, unsafe_no_sandbox: bool
    ) -> None:
        self._tasks = tasks
        self._words = {task.task_id: subject_of(f"{task.entry_point} {task.description}") for task in tasks}
        self._skeletons = {task.task_id: solution_skeleton(task.solution, task.entry_point) for task in tasks}
        self._call_timeout_s = call_timeout_s
        self._workers, self._unsafe_no_sandbox = workers, unsafe_no_sandbox

    def run(self, rows: Sequence[Text]) -> Executed:
        """Returns what running the answers of `rows` shows; the same for any number of workers.

        Raises:
          SandboxError: programs can't be confined here.
        """
        candidates = [candidate for number, row in enumerate(rows) for candidate in self._candidates(number, row)]
        found = Executed(rows=len({one.row for one in candidates}), functions=len(candidates))
        counting: list[tuple[_Candidate, Task]] = []
        screened = self._screened(candidates)
        found.unfinished = sum(not finished for _, _, finished in screened)
        passes = [(candidate, task) for candidate, tasks, _ in screened for task in tasks]
        for candidate, task in [*passes, *self._sharing(candidates)]:
            if self._evidence(candidate, task):
                counting.append((candidate, task))
            else:
                why = "trivial" if candidate.function.size <= TRIVIAL_SIZE else "no further evidence"
                found.passes.append(Pass(rows[candidate.row].key, candidate.function.call, task.task_id, why))
        for candidate, task in sorted(self._confirmed(counting), key=self._unlike):
            detail = f"{candidate.function.call} passes the tests of {task.entry_point}"
            hit = Hit(task.task_id, "tests", f"{detail}, {self._evidence(candidate, task)}")
            found.hits.setdefault(candidate.row, hit)
        return found

    def _candidates(self, number: int, row: Text) -> Iterator[_Candidate]:
        for function in functions_of(row.answer):
            words = subject_of(f"{row.instruction} {function.name}")
            fitting = [
                task
                for task in self._tasks
                if task.test.arities and all(function.fewest <= arity <= function.most for arity in task.test.arities)
            ]
            if fitting:
                fitting.sort(key=functools.partial(self._distance, function, words))
                yield _Candidate(number, function, words, fitting)

    def _distance(self, function: Function, words: frozenset[str], task: Task) -> float:
        """Returns how unlike a task a function is; the reference solution comes first, a slow one gets not far."""
        if function.skeleton == self._skeletons[task.task_id]:
            return -1.0
        return 1.0 - _share(self._words[task.task_id], words)

    def _unlike(self, counting: tuple[_Candidate, Task]) -> float:
        candidate, task = counting
        return 1.0 - _share(self._words[task.task_id], candidate.words)

    def _screened(self, candidates: Sequence[_Candidate]) -> list[tuple[_Candidate, list[Task], bool]]:
        """Returns for each candidate the tasks whose tests it passes, and whether all were tried."""
        results: list[tuple[_Candidate, list[Task], bool]] = [(one, [], True) for one in candidates]
        left = {number: [task for task in one.tasks if not task.test.shared] for number, one in enumerate(candidates)}
        for _ in range(1 + MOST_RESTARTS):
            programs = ((number, self._screen(candidates[number].function, tasks)) for number, tasks in left.items())
            broken: dict[int, list[Task]] = {}
            for number, outcome in self._outcomes(programs):
                report, (candidate, passed, _) = outcome.failure or {}, results[number]
                passed += [left[number][int(index)] for index in report.get("passed", "").split()]
                if outcome.reason == "not_plain_data" and "at" in report:  # ends the program, not the function
                    broken[number] = left[number][int(report["at"]) + 1 :]
                results[number] = candidate, passed, "done" in report or broken.get(number) == []
            left = {number: tasks for number, tasks in broken.items() if tasks}
        return results

    def _confirmed(self, passed: Sequence[tuple[_Candidate, Task]]) -> list[tuple[_Candidate, Task]]:
        """Returns those passes that a run of their own repeats, in the order given."""
        again = {number for number, (_, task) in enumerate(passed) if task.test.shared}  # these ran alone already
        programs = (
            (number, self._screen(candidate.function, [task]))
            for number, (candidate, task) in enumerate(passed)
            if number not in again
        )
        again |= {number for number, outcome in self._outcomes(programs) if (outcome.failure or {}).get("passed")}
        return [pair for number, pair in enumerate(passed) if number in again]

    def _sharing(self, candidates: Sequence[_Candidate]) -> list[tuple[_Candidate, Task]]:
        """Returns the passes of tests that must share the function's process."""
        pairs = [(one, task) for one in candidates for task in one.tasks if task.test.shared]
        programs = ((number, self._shared_program(one.function, task)) for number, (one, task) in enumerate(pairs))
        passed = {number for number, outcome in self._outcomes(programs) if outcome.status == "passed"}
        return [pair for number, pair in enumerate(pairs) if number in passed]

    def _screen(self, function: Function, tasks: Sequence[Task]) -> Program:
        tests = [
            (task.entry_point, task.test.code, task.test.inputs, task.test.as_set, task.test.not_none) for task in tasks
        ]
        return Program(
            candidate=f"{function.source}\n{screen.FUNCTION} = {function.call}\n{_NOT_NONE}",
            checker=CHECKER,
            calls=(screen.FUNCTION, screen.NOT_NONE),
            data=checker_data(screen, (self._call_timeout_s, tests)),
        )

    def _shared_program(self, function: Function, task: Task) -> Program:
        return Program(candidate=f"{function.source}\n{task.entry_point} = {function.call}\n{task.test.shared}")

    def _outcomes(self, programs: Iterable[tuple[int, Program]]) -> Iterator[tuple[int, Outcome]]:
        """Yields what became of programs, if there are any: a server takes a while to start."""
        programs = iter(programs)
        first = next(programs, None)
        if first is None:
            return
        limits = Limits(timeout_s=PROGRAM_TIMEOUT_S, memory_bytes=MEMORY_BYTES)
        yield from run_programs(itertools.chain([first], programs), limits, self._workers, self._unsafe_no_sandbox)

    def _evidence(self, candidate: _Candidate, task: Task) -> str:
        """Returns what besides a pass says that this function answers the task; "" if nothing does."""
        function = candidate.function
        if function.size <= TRIVIAL_SIZE:
            return ""
        if function.name == task.entry_point:
            return "under its own name"
        if function.skeleton == self._skeletons[task.task_id] and function.size >= OWN_SIZE:
            return "renamed, it is the reference solution"
        if task.test.strength >= STRONG_TESTS:
            return "renamed, all of many"
        share = _share(self._words[task.task_id], candidate.words)
        return f"renamed, and the row has {share:.0%} of the task's words" if share >= MOST_WORDS else ""


def subject_of(text: str) -> frozenset[str]:
    """Returns the words of a text that say what it is about, in lower case, names taken apart, without plural s."""
    words = {word.lower() for word in _PARTS.findall(text)}
    return frozenset(_singular(word) for word in words if len(word) > 1) - _IDLE


def _share(of_task: frozenset[str], of_row: frozenset[str]) -> float:
    """Returns how much of a task's words a row has, 0 to 1."""
    total = math.fsum(_weight(word) for word in of_task)
    return math.fsum(_weight(word) for word in of_task & of_row) / total if total else 0.0


def _weight(word: str) -> float:
    return 0.5 if word in _COMMON else 1.0


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word
