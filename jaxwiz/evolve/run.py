"""The evolve stage: `jaxwiz evolve CONFIG.yaml`.

Reads seeds, runs the rounds, writes evolved.jsonl (seeds and kept evolutions, shuffled), rejected.jsonl (with reasons),
statistics.json and summary.txt. journal.jsonl is the working file: a killed run that is started again reads its answers
from there. A run whose budget is spent writes the same files with what it has, and ends with exit code 3.
"""

import json
from contextlib import ExitStack
from pathlib import Path

from jaxwiz import files
from jaxwiz.config import Finding
from jaxwiz.console import say
from jaxwiz.evolve import engine
from jaxwiz.evolve.account import Account, BudgetError
from jaxwiz.evolve.checks import Checks
from jaxwiz.evolve.config import EvolveConfig
from jaxwiz.evolve.forecast import Stage, forecast, total_of
from jaxwiz.evolve.journal import Journal, JournaledGenerator, journal_path
from jaxwiz.evolve.nodes import NodesGenerator
from jaxwiz.evolve.operations import load_prompts
from jaxwiz.evolve.pool import read_seeds
from jaxwiz.evolve.rows import RowFiles
from jaxwiz.fanout import LocalEngine, check_engine
from jaxwiz.llm.backends import make_generator
from jaxwiz.llm.config import OpenAIBackend, OpenAIBatchBackend
from jaxwiz.llm.key import read_key
from jaxwiz.llm.protocol import GenerationError, TextGenerator
from jaxwiz.llm.replay import ReplayGenerator


def run(config: EvolveConfig) -> Path:
    """Returns `config.out` with the evolved set in it; continues where a killed run stopped.

    Raises:
      BudgetError: the budget is spent; the set so far is in `config.out`, and a run with a larger one continues.
      UserError: unusable seeds or prompts, or a generator that cannot go on (the journal keeps what was answered).
    """
    seeds = read_seeds(config.seeds)
    prompts = load_prompts(config.operations, config.prompts)
    with ExitStack() as opened:
        journal = opened.enter_context(Journal(journal_path(config)))
        if len(journal):
            say(f"evolve: {len(journal)} calls are already answered in {journal_path(config)}")
        account = _account(config)
        generator = _generator(config, journal)
        if isinstance(generator, ReplayGenerator):  # a program that fails only at times is not run again for a replay
            journal.append([answer for answer in generator.ran if bytes.fromhex(answer.key) not in journal])
        checks = opened.enter_context(Checks(config.eliminate, config.out, journal, generator.name))
        plan = {stage.title: stage.calls for stage in forecast(seeds, config, prompts, {})}
        asker = JournaledGenerator(generator, journal, account, plan)
        rows = opened.enter_context(RowFiles(config.out, config.seed))
        statistics = engine.evolve(seeds, config, prompts, asker.ask, checks, rows.add)
    described = statistics.to_json(account, generator.name, config.rounds)
    files.write_text(config.out / "statistics.json", json.dumps(described, indent=1) + "\n")
    files.write_text(config.out / "summary.txt", statistics.summarise(account, config.rounds))
    say(f"evolve: {asker.sent} calls sent, {statistics.kept} evolutions kept, {account.spent()} in all")
    say(f"evolve: `jaxwiz insight {config.out}` shows what was kept, what not, and why")
    if asker.is_broke:
        raise BudgetError(
            f"budget: {account.spent()} taken, and another call might exceed it; {config.out} holds the set so far, "
            "and the same command with a larger budget continues"
        )
    return config.out


def check(config: EvolveConfig) -> list[Finding]:
    """Returns what can be known before running: seeds, prompts, the key, and how many calls it will take at most."""
    findings = []
    try:
        seeds = read_seeds(config.seeds)
        prompts = load_prompts(config.operations, config.prompts)
    except files.UserError as error:
        return [Finding("error", str(error))]
    unanswered = sum(not seed.output for seed in seeds)
    findings.append(Finding("ok", f"seeds: {len(seeds)}, of which {unanswered} have no output and will be answered"))
    if isinstance(config.generator, OpenAIBackend | OpenAIBatchBackend):
        try:
            read_key(config.generator)
        except GenerationError as error:
            findings.append(Finding("error", str(error)))
    total = total_of("in all", forecast(seeds, config, prompts, {}))
    findings.append(
        Finding(
            "ok",
            f"at most {total.calls} calls and {total.most_new_tokens} generated tokens in {config.rounds} round(s); "
            "`jaxwiz evolve CONFIG --dry-run` estimates tokens, cost and time",
        )
    )
    return findings + _check_budget(config, total) + _check_sandbox(config) + check_engine(config.engine)


def _check_budget(config: EvolveConfig, total: Stage) -> list[Finding]:
    account = _account(config)
    cost, tokens = account.price(total.prompt_tokens, total.new_tokens), total.prompt_tokens + total.new_tokens
    limits = {"max_tokens": (config.budget.max_tokens, tokens), "max_cost": (config.budget.max_cost, cost)}
    return [
        Finding(
            "warning",
            f"budget.{name} = {limit}: the run is estimated at {estimate:.10g}; it will stop before its end, with exit "
            f"code {BudgetError.exit_code}, and continue when the budget is raised",
        )
        for name, (limit, estimate) in limits.items()
        if limit is not None and estimate is not None and estimate > limit
    ]


def _account(config: EvolveConfig) -> Account:
    return Account(config.prices, config.budget, isinstance(config.generator, OpenAIBatchBackend))


def _check_sandbox(config: EvolveConfig) -> list[Finding]:
    if "runs" not in config.eliminate.detectors:
        return []
    from jaxwiz.sandbox import sandbox_level

    try:
        level = sandbox_level(config.eliminate.unsafe_no_sandbox)
    except files.UserError as error:
        return [Finding("error", str(error))]
    return [Finding("ok", f"answers run in the sandbox, {level}")]


def _generator(config: EvolveConfig, journal: Journal) -> TextGenerator:
    work = config.out / "generator"
    if isinstance(config.engine, LocalEngine):
        return make_generator(config.generator, work)
    return NodesGenerator(config.engine, config.generator, work, journal)
