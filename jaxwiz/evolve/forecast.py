"""What a run will take: calls, tokens, money and time by stage, before anything is asked (`--dry-run`).

Calls are those of a run that rejects nothing, so an upper bound. Tokens of prompts are counted from the seeds and the
prompts' wording at four bytes a token, and grow by what an evolution adds; generated tokens are taken from the journal
where it holds calls of that kind (a pilot of some items makes the estimate good), else they are the assumptions below.
Beside the estimate stands the most that it can be: every answer as long as its limit.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxwiz.evolve.account import Account
from jaxwiz.evolve.config import EvolveConfig
from jaxwiz.evolve.journal import journal_path
from jaxwiz.evolve.live import span
from jaxwiz.evolve.operations import Prompts, load_prompts
from jaxwiz.evolve.pool import prompt_text, read_seeds
from jaxwiz.llm.config import OpenAIBackend, OpenAIBatchBackend
from jaxwiz.llm.protocol import estimate_tokens
from jaxwiz.llm.recording import recorded_lines
from jaxwiz.records import EvolvedTask

ADDED_TOKENS = 25  # that an evolution has beyond its parent: 10 to 20 words, and some markup
ANSWER_TOKENS = 400
VERDICT_TOKENS = 3
SCORE_TOKENS = 2
FIRST_TOKEN_S, TOKENS_PER_S = 0.5, 50.0  # of one call at an endpoint
BATCH_HOURS = 24.0
KINDS = ("evolve", "judge", "answer", "difficulty")


@dataclasses.dataclass(frozen=True)
class Stage:
    """The calls of one phase, or of several together.

    Attributes:
      title: for instance "round 1: evolve".
      calls: how many.
      prompt_tokens: in their prompts.
      new_tokens: generated, as estimated.
      most_new_tokens: generated, if each answer reaches its limit.
    """

    title: str
    calls: int
    prompt_tokens: int
    new_tokens: int
    most_new_tokens: int


def forecast(
    seeds: Sequence[EvolvedTask], config: EvolveConfig, prompts: Prompts, measured: dict[str, float]
) -> list[Stage]:
    """Returns the stages of a run in their order.

    Args:
      seeds: the pool.
      config: the stage's config.
      prompts: the wording.
      measured: by kind of call, generated tokens of a call, where that is known.
    """
    return list(_stages(seeds, config, prompts, measured))


def measured_tokens(journal: Path) -> dict[str, float]:
    """Returns, by kind of call, how many tokens a call of a journal generated on average; of no journal {}."""
    calls: dict[str, list[int]] = {}
    for _, answer in recorded_lines(journal) if journal.exists() else ():
        if answer is not None and answer.kind in KINDS:  # a cluster's nodes don't know what they are asked for
            calls.setdefault(answer.kind, []).append(answer.result.new_tokens)
    return {kind: sum(tokens) / len(tokens) for kind, tokens in calls.items()}


def dry_run(config: EvolveConfig) -> str:
    """Returns the forecast as a table, with its assumptions and the time that it takes.

    Raises:
      UserError: unusable seeds, prompts or journal.
    """
    seeds, journal = read_seeds(config.seeds), journal_path(config)
    measured = measured_tokens(journal)
    stages = forecast(seeds, config, load_prompts(config.operations, config.prompts), measured)
    total = total_of("in all", stages)
    account = Account(config.prices, in_batches=isinstance(config.generator, OpenAIBatchBackend))
    head = f"{'stage':25} {'calls':>9} {'prompt tokens':>14} {'generated':>14} {'at most':>14}"
    lines = [head + (f" {'cost':>10} {'at most':>10} {account.currency}" if config.prices else "")]
    for stage in (*stages, total):
        line = (
            f"{stage.title:25} {stage.calls:>9} {stage.prompt_tokens:>14} {stage.new_tokens:>14} "
            f"{stage.most_new_tokens:>14}"
        )
        if config.prices:
            costs = [account.price(stage.prompt_tokens, new) for new in (stage.new_tokens, stage.most_new_tokens)]
            line += " " + " ".join(f"{cost:>10.2f}" for cost in costs)
        lines.append(line)
    known = ", ".join(f"{kind} {tokens:.0f}" for kind, tokens in measured.items())
    lines += [
        "calls: if nothing is rejected and nothing is journaled yet",
        f"generated tokens of a call: {f'{known} (measured in {journal})' if known else _ASSUMED}",
        *_times(config, stages, total),
    ]
    if not config.prices:
        lines.append("cost: unknown; give prices.input_per_million and prices.output_per_million")
    return "\n".join(lines) + "\n"


_ASSUMED = (
    f"assumed: an evolution its parent's and {ADDED_TOKENS}, a verdict {VERDICT_TOKENS}, an answer {ANSWER_TOKENS}; "
    "a pilot with items_per_round=50 and this journal measures them"
)


def _stages(
    seeds: Sequence[EvolvedTask], config: EvolveConfig, prompts: Prompts, measured: dict[str, float]
) -> Iterator[Stage]:
    lengths = [estimate_tokens(prompt_text(seed)) for seed in seeds]
    unanswered = [length for length, seed in zip(lengths, seeds, strict=True) if not seed.output]
    items = min(len(seeds), config.items_per_round or len(seeds))
    parents = sum(lengths) * items / len(seeds)
    weights = config.operations
    frame = sum(
        weight * estimate_tokens(prompts.operations[name].prompt("")) for name, weight in weights.items()
    ) / sum(weights.values())
    judge_frame = estimate_tokens(prompts.judge.render(first="", second=""))

    def stage(title: str, kind: str, count: int, prompt_tokens: float, new_tokens: float) -> Stage:
        limit = getattr(config.calls, kind).max_new_tokens
        new = min(measured[kind] * count if kind in measured else new_tokens, limit * count)
        return Stage(title, count, round(prompt_tokens), round(new), limit * count)

    if unanswered:
        answer_tokens = ANSWER_TOKENS * len(unanswered)
        yield stage("round 0: answer", "answer", len(unanswered), sum(unanswered), answer_tokens)
    if config.calls.difficulty:
        rating_frame = estimate_tokens(prompts.difficulty.render(task=""))
        seeds_and_frames = sum(lengths) + rating_frame * len(seeds)
        yield stage("round 0: difficulty", "difficulty", len(seeds), seeds_and_frames, SCORE_TOKENS * len(seeds))
    for number in range(1, config.rounds + 1):
        children = parents + ADDED_TOKENS * items
        yield stage(f"round {number}: evolve", "evolve", items, parents + frame * items, children)
        judged = parents + children + judge_frame * items
        verdicts = stage(f"round {number}: judge", "judge", items, judged, VERDICT_TOKENS * items)
        answers = stage(f"round {number}: answer", "answer", items, children, ANSWER_TOKENS * items)
        if config.calls.together:
            yield total_of(f"round {number}: judge and answer", (verdicts, answers))
        else:
            yield verdicts
            yield answers
        if config.calls.difficulty:
            tasks_and_frames = children + rating_frame * items
            yield stage(f"round {number}: difficulty", "difficulty", items, tasks_and_frames, SCORE_TOKENS * items)
        if items == len(seeds):
            parents = children
        else:  # of a pool of which few items evolve, few parents have grown
            parents += ADDED_TOKENS * items * items / len(seeds)


def total_of(title: str, stages: Sequence[Stage]) -> Stage:
    """Returns several stages as one."""
    columns = zip(*((one.calls, one.prompt_tokens, one.new_tokens, one.most_new_tokens) for one in stages), strict=True)
    return Stage(title, *map(sum, columns))


def _times(config: EvolveConfig, stages: Sequence[Stage], total: Stage) -> list[str]:
    """Returns what bounds a run's time, for generators whose speed is agreed upon."""
    backend = config.generator
    if isinstance(backend, OpenAIBatchBackend):
        per_turn = backend.requests_per_file * backend.max_open_files
        turns = sum(-(-stage.calls // per_turn) for stage in stages)
        return [f"time: {turns} turns of batches, at most {BATCH_HOURS:.0f} h each: {span(turns * 3600 * BATCH_HOURS)}"]
    if not isinstance(backend, OpenAIBackend):
        return []
    flight_s = total.calls * FIRST_TOKEN_S + total.new_tokens / TOKENS_PER_S
    bounds = {f"{backend.max_in_flight} in flight, {TOKENS_PER_S:.0f} tokens/s each": flight_s / backend.max_in_flight}
    if backend.requests_per_minute:
        bounds[f"{backend.requests_per_minute} requests/min"] = 60 * total.calls / backend.requests_per_minute
    if backend.tokens_per_minute:
        tokens = total.prompt_tokens + total.new_tokens
        bounds[f"{backend.tokens_per_minute} tokens/min"] = 60 * tokens / backend.tokens_per_minute
    each = "; ".join(f"by {name} {span(seconds)}" for name, seconds in bounds.items())
    return [f"time: {span(max(bounds.values()))} ({each})"]
