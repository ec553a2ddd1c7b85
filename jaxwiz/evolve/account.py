"""What a run's calls took, in tokens and money, and whether it may ask more.

A budget is one of the whole run, from its first start to its end: calls that the journal holds count as well. A call is
sent only if its prompt and the longest answer that it may have still fit, so a limit is kept rather than noticed. Since
answers are mostly shorter than that, what was set aside for them is used by the next wave of calls.
"""

import dataclasses
from collections.abc import Sequence

from jaxwiz.evolve.config import BudgetConfig, PricesConfig
from jaxwiz.llm.protocol import GenerationRequest, GenerationResult, StopAskingError

FEWEST_BYTES_PER_TOKEN = 2  # of prompts that a budget must have room for: code and Chinese have more bytes a token
KINDS = ("evolve", "judge", "answer", "difficulty")  # of calls, as a round goes
TEMPLATE_TOKENS = 16  # that a chat template puts around a prompt


class BudgetError(StopAskingError):
    """The budget is spent; what was asked is journaled, and the results are those so far."""

    exit_code = 3


@dataclasses.dataclass
class Usage:
    """What some calls took, whether they were asked now or in an earlier, interrupted run."""

    calls: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0


class Account:
    """The books of a run.

    Attributes:
      usage: by (round, kind of call), in order of first use.
      budget: the limits.
    """

    def __init__(
        self,
        prices: PricesConfig | None = None,
        budget: BudgetConfig = BudgetConfig(),  # noqa: B008 - frozen
        in_batches: bool = False,
    ) -> None:
        self.usage: dict[tuple[int, str], Usage] = {}
        self.budget = budget
        self._prices = prices
        self._share_of_price = 1.0 - prices.batch_discount if prices and in_batches else 1.0

    @property
    def tokens(self) -> int:
        """All tokens so far, of prompts and answers."""
        return sum(used.prompt_tokens + used.new_tokens for used in self._used())

    @property
    def cost(self) -> float | None:
        """All money so far; None without prices."""
        used = self._used()
        return self.price(sum(one.prompt_tokens for one in used), sum(one.new_tokens for one in used))

    @property
    def currency(self) -> str | None:
        """What `cost` is in; None without prices."""
        return self._prices.currency if self._prices else None

    def price(self, prompt_tokens: int, new_tokens: int) -> float | None:
        """Returns what so many tokens cost; None without prices."""
        if self._prices is None:
            return None
        cost = prompt_tokens * self._prices.input_per_million + new_tokens * self._prices.output_per_million
        return self._share_of_price * cost / 1e6

    def add(self, round_number: int, kind: str, result: GenerationResult) -> None:
        """Enters a call."""
        used = self.usage.setdefault((round_number, kind), Usage())
        used.calls += 1
        used.prompt_tokens += result.prompt_tokens
        used.new_tokens += result.new_tokens

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.budget.max_tokens is not None or self.budget.max_cost is not None

    def affordable(self, requests: Sequence[GenerationRequest]) -> int:
        """Returns how many of `requests`, from the first, the budget has room for whatever they take."""
        most_tokens, most_cost = self.budget.max_tokens, self.budget.max_cost
        tokens, cost = self.tokens, self.cost or 0.0
        for count, request in enumerate(requests):
            prompt_tokens = len(request.prompt.encode()) // FEWEST_BYTES_PER_TOKEN + TEMPLATE_TOKENS
            tokens += prompt_tokens + request.max_new_tokens
            cost += self.price(prompt_tokens, request.max_new_tokens) or 0.0
            if (most_tokens is not None and tokens > most_tokens) or (most_cost is not None and cost > most_cost):
                return count
        return len(requests)

    def in_order(self) -> list[tuple[int, str, Usage]]:
        """Returns all usage as (round, kind, usage), in the order of rounds and of a round's phases."""
        used = ((round_number, kind, used) for (round_number, kind), used in self.usage.items())
        return sorted(used, key=lambda one: (one[0], KINDS.index(one[1])))

    def _used(self) -> list[Usage]:
        """Returns all usage at once: a view of the run is drawn by another thread than the one that enters calls."""
        return list(self.usage.values())

    def spent(self) -> str:
        """Returns, for people, what was taken so far: "1234 tokens, 0.56 USD"."""
        cost = self.cost
        return f"{self.tokens} tokens" + (f", {cost:.2f} {self.currency}" if cost is not None else "")
