"""Evolution in a notebook: seeds in, rows out, with the same journal, rules and draws as the stage."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxwiz.evolve import engine
from jaxwiz.evolve.account import Account
from jaxwiz.evolve.checks import Checks
from jaxwiz.evolve.config import EvolveConfig
from jaxwiz.evolve.journal import Journal, JournaledGenerator
from jaxwiz.evolve.operations import load_prompts
from jaxwiz.evolve.pool import tasks_of
from jaxwiz.evolve.rows import Evolution
from jaxwiz.llm.config import ReplayBackend
from jaxwiz.llm.protocol import TextGenerator
from jaxwiz.records import Seed

WIZARDLM = dict.fromkeys(
    (
        *(f"in_depth/{name}" for name in ("add_constraints", "deepen", "concretize", "reasoning_steps")),
        "in_depth/complicate_input",
        "in_breadth/rarer_topic",
    ),
    1.0,
)
WIZARDCODER = {
    **dict.fromkeys(
        (f"code/{name}" for name in ("add_constraint", "rare_requirement", "reasoning_steps", "misleading_code")), 1.0
    ),
    "code/complexity": 0.25,
}


def evolve(seeds: Iterable[str | Seed], generator: TextGenerator, journal: Path, **settings: Any) -> Evolution:
    """Returns what evolving `seeds` makes: kept seeds, kept evolutions, rejected ones with their reasons, and counts.

    Every answer is in the journal before it is used: called again with the same seeds, settings and journal, this asks
    for nothing that was answered, and returns the same rows. Where a budget is spent, statistics["complete"] is False.

    Args:
      seeds: instructions, or seeds with inputs, outputs and ids; missing outputs are asked for first.
      generator: any `TextGenerator`; `jaxwiz.llm.backends.make_generator` makes those of a config.
      journal: file of answered calls; made if it does not exist.
      settings: fields of `EvolveConfig` by name: `operations` (by default WizardLM's six), `rounds`, `calls`,
        `eliminate`, `quotas`, `prices`, `budget`, `prompts`, `seed`, `items_per_round`.

    Raises:
      UserError: unusable seeds or settings, or a generator that cannot go on (the journal keeps what was answered).

    Example:
      A generator is anything that answers requests; this one knows two answers by heart.

      >>> import tempfile
      >>> from pathlib import Path
      >>> from jaxwiz.evolve import Activity, GenerationResult, evolve
      >>> class ByHeart:
      ...     name, activity = "by heart", Activity()
      ...     def generate_all(self, requests, on_results):
      ...         for number, request in enumerate(requests):
      ...             text = "Not Equal" if "verdict" in request.prompt else "Sort a list without recursion."
      ...             on_results({number: GenerationResult(text, "stop", 9, 5)})
      >>> journal = Path(tempfile.mkdtemp()) / "journal.jsonl"
      >>> made = evolve(["Sort a list."], ByHeart(), journal, operations={"in_depth/add_constraints": 1}, rounds=2)
      >>> [(task.id, task.instruction) for task in made.evolved]
      [('seed-00001/r1', 'Sort a list without recursion.')]
      >>> [(task.id, task.rejected) for task in made.rejected]
      [('seed-00001/r2', 'unchanged')]
    """
    placeholders = {"out": journal.parent, "seeds": journal, "generator": ReplayBackend(path=journal)}
    config = EvolveConfig(**{"operations": WIZARDLM, **settings, **placeholders})
    given = (Seed(instruction=seed) if isinstance(seed, str) else seed for seed in seeds)
    tasks = tasks_of(given, "seeds")
    account = Account(config.prices, config.budget)
    made = Evolution()
    with Journal(journal) as opened, Checks(config.eliminate, None, opened, generator.name) as checks:
        asker = JournaledGenerator(generator, opened, account)
        prompts = load_prompts(config.operations, config.prompts)
        statistics = engine.evolve(tasks, config, prompts, asker.ask, checks, made.add)
    made.statistics = statistics.to_json(account, generator.name, config.rounds)
    return made
