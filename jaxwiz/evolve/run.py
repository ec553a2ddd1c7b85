"""The evolve stage: `jaxwiz evolve CONFIG.yaml`.

Reads seeds, runs the rounds, writes evolved.jsonl (seeds and kept evolutions, shuffled), rejected.jsonl (with reasons)
and summary.txt. journal.jsonl is the working file: a killed run that is started again reads its answers from there.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jaxwiz import files
from jaxwiz.clean.decontaminate import Decontaminator
from jaxwiz.clean.tasks import load_tasks
from jaxwiz.clean.texts import Text
from jaxwiz.config import Finding
from jaxwiz.console import say
from jaxwiz.evolve import engine
from jaxwiz.evolve.config import EvolveConfig
from jaxwiz.evolve.journal import Journal, JournaledGenerator, Usage
from jaxwiz.evolve.operations import load_prompts
from jaxwiz.evolve.pool import read_seeds
from jaxwiz.llm.backends import make_generator
from jaxwiz.llm.config import OpenAIBackend, OpenAIBatchBackend
from jaxwiz.llm.key import read_key
from jaxwiz.llm.protocol import GenerationError
from jaxwiz.problems.config import BenchmarkConfig
from jaxwiz.records import EvolvedTask, write_records


def run(config: EvolveConfig) -> Path:
    """Returns `config.out` with the evolved set in it; continues where a killed run stopped.

    Raises:
      UserError: unusable seeds or prompts, or a generator that cannot go on (the journal keeps what was answered).
    """
    seeds = read_seeds(config.seeds)
    prompts = load_prompts(config.operations, config.prompts)
    is_contaminated = _contamination_test(config.decontaminate)
    with Journal(config.out / "journal.jsonl") as journal:
        if journal.results:
            say(f"evolve: {len(journal.results)} calls are already answered in {config.out / 'journal.jsonl'}")
        asker = JournaledGenerator(make_generator(config.generator, config.out / "generator"), journal)
        outcome = engine.evolve(seeds, config, prompts, asker.ask, is_contaminated)
    write_records(config.out / "evolved.jsonl", outcome.training_set(config.seed))
    write_records(config.out / "rejected.jsonl", outcome.rejected)
    files.write_text(config.out / "summary.txt", summarise(outcome, config, asker.usage))
    say(f"evolve: {asker.sent} calls sent, {len(outcome.evolved)} evolutions kept")
    return config.out


def check(config: EvolveConfig) -> list[Finding]:
    """Returns what can be known before running: seeds, prompts, the key, and how many calls it will take at most."""
    findings = []
    try:
        seeds = read_seeds(config.seeds)
        load_prompts(config.operations, config.prompts)
    except files.UserError as error:
        return [Finding("error", str(error))]
    unanswered = sum(not seed.output for seed in seeds)
    findings.append(Finding("ok", f"seeds: {len(seeds)}, of which {unanswered} have no output and will be answered"))
    if isinstance(config.generator, OpenAIBackend | OpenAIBatchBackend):
        try:
            read_key(config.generator)
        except GenerationError as error:
            findings.append(Finding("error", str(error)))
    items = min(len(seeds), config.items_per_round or len(seeds)) * config.rounds
    tokens = items * (config.evolve.max_new_tokens + config.judge.max_new_tokens + config.answer.max_new_tokens)
    tokens += unanswered * config.answer.max_new_tokens
    findings.append(
        Finding(
            "ok", f"at most {3 * items + unanswered} calls and {tokens} generated tokens in {config.rounds} round(s)"
        )
    )
    return findings


def summarise(outcome: engine.Evolution, config: EvolveConfig, usage: Mapping[str, Usage]) -> str:
    """Returns the lines of summary.txt; they depend on the outcome alone, not on interruptions."""
    tried = [*outcome.evolved, *(task for task in outcome.rejected if task.round > 0)]
    lost_seeds = [task for task in outcome.rejected if task.round == 0]
    verdicts = ", ".join(f"{name} {count}" for name, count in outcome.verdicts.items())
    calls = ", ".join(f"{kind} {used.calls}" for kind, used in usage.items()) or "none"
    prompt_tokens = sum(used.prompt_tokens for used in usage.values())
    new_tokens = sum(used.new_tokens for used in usage.values())
    lines = [
        f"rows:        {len(outcome.seeds) + len(outcome.evolved)} = {len(outcome.seeds)} seeds "
        f"+ {len(outcome.evolved)} evolutions",
        f"seeds lost:  {len(lost_seeds)}{_reasons(lost_seeds)}",
        f"evolutions:  {len(outcome.evolved)} of {len(tried)} kept in {config.rounds} round(s)",
        f"rejected:    {len(tried) - len(outcome.evolved)}{_reasons(tried)}",
        f"verdicts:    {verdicts}",
        f"by operation: {_acceptance(tried, lambda task: task.operation)}",
        f"by round:    {_acceptance(tried, lambda task: str(task.round))}",
        f"calls:       {sum(used.calls for used in usage.values())} ({calls})",
        f"tokens:      {prompt_tokens} in prompts, {new_tokens} generated",
    ]
    return "\n".join(lines) + "\n"


def _reasons(tasks: list[EvolvedTask]) -> str:
    counts = Counter(task.rejected for task in tasks if task.rejected)
    named = [f"{reason} {count}" for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return f": {', '.join(named)}" if named else ""


def _acceptance(tasks: list[EvolvedTask], group: Callable[[EvolvedTask], str]) -> str:
    """Returns "name kept/tried" for each group, sorted by name."""
    tried = Counter(group(task) for task in tasks)
    kept = Counter(group(task) for task in tasks if not task.rejected)
    return ", ".join(f"{name} {kept[name]}/{tried[name]}" for name in sorted(tried)) or "none"


def _contamination_test(benchmarks: Sequence[BenchmarkConfig]) -> engine.IsContaminated:
    _, tasks = load_tasks(benchmarks)
    index = Decontaminator(tasks)

    def is_contaminated(task: EvolvedTask) -> bool:
        return index.find(Text(task.id, f"{task.instruction}\n{task.input}", task.output)) is not None

    return is_contaminated
