"""What became of the items of a run, counted while they go by: statistics.json and summary.txt.

Counts depend on the outcome alone, not on interruptions, concurrency or what was answered from a journal.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from jaxwiz.evolve.account import Account
from jaxwiz.evolve.detectors import DETECTED
from jaxwiz.records import EvolvedTask

SCHEMA = "jaxwiz.evolve_statistics.v1"
VERDICTS = ("equal", "not_equal", "unclear")


class Statistics:
    """Counts of a run.

    Attributes:
      waiting: by round, items that a spent budget left without an answer.
      unrated: kept tasks that it left without a score of their difficulty.
    """

    def __init__(self) -> None:
        self._outcomes: dict[int, Counter[tuple[str, str]]] = defaultdict(Counter)  # round -> (operation, reason)
        self._verdicts: dict[int, Counter[str]] = defaultdict(Counter)
        self._scores: dict[int, Counter[int]] = defaultdict(Counter)  # round -> how often each difficulty
        self.waiting: Counter[int] = Counter()
        self.unrated = 0

    def add(self, task: EvolvedTask) -> None:
        """Counts a seed or an evolution that was kept or rejected."""
        self._outcomes[task.round][task.operation, task.rejected] += 1
        if task.difficulty:
            self._scores[task.round][task.difficulty] += 1

    def add_verdict(self, round_number: int, verdict: str) -> None:
        """Counts a judge's verdict."""
        self._verdicts[round_number][verdict] += 1

    @property
    def kept(self) -> int:
        """How many evolutions were kept."""
        return sum(_kept(counts) for number, counts in self._outcomes.items() if number > 0)

    @property
    def complete(self) -> bool:
        """Whether nothing waits for a larger budget."""
        return not self.waiting.total() and not self.unrated

    def to_json(self, account: Account, generator: str, rounds_wanted: int) -> dict[str, Any]:
        """Returns the content of statistics.json."""
        seeds = self._outcomes[0]
        return {
            "schema": SCHEMA,
            "generator": generator,
            "rounds_wanted": rounds_wanted,
            "complete": self.complete,
            "seeds": {"read": seeds.total() + self.waiting[0], **_outcome(seeds), "difficulty": self._difficulty(0)},
            "rounds": [self._round(number) for number in sorted({*self._outcomes, *self.waiting} - {0})],
            "calls": [
                {
                    "round": round_number,
                    "kind": kind,
                    "calls": used.calls,
                    "prompt_tokens": used.prompt_tokens,
                    "new_tokens": used.new_tokens,
                    "cost": account.price(used.prompt_tokens, used.new_tokens),
                }
                for round_number, kind, used in account.in_order()
            ],
            "currency": account.currency,
        }

    def _round(self, number: int) -> dict[str, Any]:
        counts = self._outcomes[number]
        operations = sorted({operation for operation, _ in counts})
        return {
            "round": number,
            "tried": counts.total(),
            **_outcome(counts),
            "waiting": self.waiting[number],
            "difficulty": self._difficulty(number),
            "verdicts": {verdict: self._verdicts[number][verdict] for verdict in VERDICTS},
            "operations": {
                name: {"tried": of_one.total(), **_outcome(of_one)}
                for name in operations
                for of_one in [Counter({key: count for key, count in counts.items() if key[0] == name})]
            },
        }

    def _difficulty(self, number: int) -> float | None:
        """Returns the mean score of a round's kept tasks, as far as they have one; None where none has."""
        scores = self._scores[number]
        return sum(score * count for score, count in scores.items()) / scores.total() if scores else None

    def summarise(self, account: Account, rounds: int) -> str:
        """Returns the lines of summary.txt."""
        seeds = self._outcomes[0]
        tried: Counter[tuple[str, str]] = Counter()
        for number, counts in self._outcomes.items():
            if number > 0:
                tried.update(counts)
        by_detectors = Counter({key: count for key, count in tried.items() if key[1] in DETECTED})
        by_rules = tried - by_detectors
        verdicts: Counter[str] = sum(self._verdicts.values(), Counter())
        calls: Counter[str] = Counter()
        for _, kind, used in account.in_order():
            calls[kind] += used.calls
        prompt_tokens = sum(used.prompt_tokens for used in account.usage.values())
        new_tokens = sum(used.new_tokens for used in account.usage.values())
        by_round = {str(number): counts for number, counts in sorted(self._outcomes.items()) if number > 0}
        by_operation = {
            name: Counter({key: count for key, count in tried.items() if key[0] == name})
            for name in sorted({operation for operation, _ in tried})
        }
        lines = [
            f"rows:        {_kept(seeds) + self.kept} = {_kept(seeds)} seeds + {self.kept} evolutions",
            f"seeds lost:  {_rejected(seeds)}{_reasons(seeds)}",
            f"evolutions:  {self.kept} of {tried.total()} kept in {rounds} round(s)",
            f"rejected:    {_rejected(by_rules)}{_reasons(by_rules)}",
            f"detected:    {_rejected(by_detectors)}{_reasons(by_detectors)}",
            f"verdicts:    {', '.join(f'{verdict} {verdicts[verdict]}' for verdict in VERDICTS)}",
            f"by operation: {_acceptance(by_operation)}",
            f"by round:    {_acceptance(by_round)}",
            f"calls:       {calls.total()} ({', '.join(f'{kind} {count}' for kind, count in calls.items()) or 'none'})",
            f"tokens:      {prompt_tokens} in prompts, {new_tokens} generated",
        ]
        if any(self._scores.values()):
            means = {number: self._difficulty(number) for number in sorted(self._scores)}
            named = [f"{f'round {number}' if number else 'seeds'} {mean:.2f}" for number, mean in means.items() if mean]
            lines.append(f"difficulty:  {', '.join(named)}")
        if account.cost is not None:
            lines.append(f"cost:        {account.cost:.2f} {account.currency}")
        if self.waiting.total():
            lines.append(f"unfinished:  {self.waiting.total()} items wait for a larger budget")
        if self.unrated:
            lines.append(f"unfinished:  {self.unrated} scores of difficulty wait for a larger budget")
        return "\n".join(lines) + "\n"


def _kept(counts: Mapping[tuple[str, str], int]) -> int:
    return sum(count for (_, reason), count in counts.items() if not reason)


def _rejected(counts: Mapping[tuple[str, str], int]) -> int:
    return sum(counts.values()) - _kept(counts)


def _by_reason(counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Returns {reason: how often}, the most frequent first."""
    found: Counter[str] = Counter()
    for (_, reason), count in counts.items():
        found[reason] += count
    del found[""]
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _outcome(counts: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    return {"kept": _kept(counts), "rejected": _by_reason(counts)}


def _reasons(counts: Mapping[tuple[str, str], int]) -> str:
    named = [f"{reason} {count}" for reason, count in _by_reason(counts).items()]
    return f": {', '.join(named)}" if named else ""


def _acceptance(groups: Mapping[str, Counter[tuple[str, str]]]) -> str:
    """Returns "name kept/tried" for each group."""
    return ", ".join(f"{name} {_kept(counts)}/{counts.total()}" for name, counts in groups.items()) or "none"
