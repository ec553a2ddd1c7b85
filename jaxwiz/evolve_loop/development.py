"""Keeps the development set apart from reported benchmarks: a stop rule that looks at these is tuning on the test set.

Tasks are compared by their texts, as decontamination compares training rows with tasks: whole, contained, long runs of
words in common, or function name with a documented example. Ids say nothing, since files of one's own may have any.
"""

from collections.abc import Sequence

from jaxwiz.clean.decontaminate import Decontaminator
from jaxwiz.clean.tasks import tasks_of
from jaxwiz.clean.texts import Text
from jaxwiz.config import ConfigError
from jaxwiz.evolve_loop.config import LoopConfig
from jaxwiz.problems.benchmarks import load_benchmark
from jaxwiz.problems.problem import Benchmark

MOST_NAMED = 5


def load_development(config: LoopConfig) -> Benchmark:
    """Returns the development set.

    Raises:
      ConfigError: one of its tasks is a task of a reported benchmark.
      UserError: a benchmark can't be had.
    """
    development = load_benchmark(config.development)
    found = overlaps(development, [load_benchmark(one) for one in config.reported])
    if found:
        more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise ConfigError(
            f"development: {len(found)} of its {len(development.problems)} tasks are in a reported benchmark: "
            f"{'; '.join(found[:MOST_NAMED])}{more}. Rounds that are chosen by their score on a test set overfit to "
            "it; take other tasks, or leave these out by development.ids"
        )
    return development


def overlaps(development: Benchmark, reported: Sequence[Benchmark]) -> list[str]:
    """Returns, for each task of `development` that a reported benchmark has, which it is and how it was found."""
    reported_tasks = tasks_of(reported)
    labels = {task.task_id: task.label for task in reported_tasks}
    finder = Decontaminator(reported_tasks)
    found = []
    for problem in development.problems.values():
        question = problem.description or problem.prompt
        hit = finder.find(Text(problem.task_id, question, problem.canonical_solution))
        if hit is not None:
            found.append(f"{problem.task_id} is {labels[hit.task_id]}, by {hit.tier}")
    return found
