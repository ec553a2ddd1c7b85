"""All chance in the evolver: numbers drawn by hashing what they are for.

A draw depends on (seed, item, round, attempt) and on nothing else: not on the order in which answers arrive, not on how
many are in flight, not on what other items do. So any concurrency, and any restart, makes the same set. Only a quota
looks at the other items of its round, since a share is one of them all; these, too, are the same in every run.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def draw_operation(weights: Mapping[str, float], seed: int, item: str, round_number: int, attempt: int) -> str:
    """Returns one name of `weights`, drawn in proportion to its weight; the mapping's order does not matter."""
    point = _unit_interval("operation", seed, item, round_number, attempt) * sum(weights.values())
    names = sorted(weights)
    for name in names:
        point -= weights[name]
        if point < 0:
            return name
    return names[-1]  # rounding took the point to the very end


def draw_operations(
    weights: Mapping[str, float],
    quotas: Mapping[str, float],
    seed: int,
    items: Sequence[tuple[str, int]],
    round_number: int,
) -> list[str]:
    """Returns the operation of each item of a round.

    Of the items that drew an operation beyond its quota, those whose hash is highest draw again among the operations
    without a quota.

    Args:
      weights: operation to weight.
      quotas: operation to the largest share of the items that it may have; of a fraction of an item nothing is left.
      seed: the run's seed.
      items: (name, attempt) of each item.
      round_number: 1, 2, ...
    """
    drawn = [draw_operation(weights, seed, name, round_number, attempt) for name, attempt in items]
    free = {operation: weight for operation, weight in weights.items() if operation not in quotas}
    for operation, share in sorted(quotas.items()):
        having = [index for index, one in enumerate(drawn) if one == operation]
        having.sort(key=lambda index: _digest("quota", seed, *items[index], round_number))
        for index in having[math.floor(share * len(items) + 1e-9) :]:
            name, attempt = items[index]
            drawn[index] = draw_operation(free, seed, f"{name} again", round_number, attempt)
    return drawn


def sampling_seed(kind: str, seed: int, item: str, round_number: int, attempt: int) -> int:
    """Returns the sampling seed, 0 to 2**31 - 1, of a call of some kind ("evolve", "judge", ...) for an item."""
    return int.from_bytes(_digest(kind, seed, item, round_number, attempt)[:4], "big") >> 1


def draw_subset(items: Sequence[Item], names: Sequence[str], count: int, seed: int, round_number: int) -> list[Item]:
    """Returns `count` of `items` (all, if there are fewer), in their order.

    Args:
      items: what to choose from.
      names: each item's name, which decides with seed and round whether it is chosen.
      count: how many.
      seed: the run's seed.
      round_number: 1, 2, ...
    """
    ranked = sorted(range(len(items)), key=lambda index: _digest("subset", seed, names[index], round_number))
    return [items[index] for index in sorted(ranked[:count])]


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Returns `names` in an order that only the set of names and the seed decide."""
    return sorted(names, key=lambda name: _digest("shuffle", seed, name))


def _unit_interval(*parts: str | int) -> float:
    return int.from_bytes(_digest(*parts)[:6], "big") / 2**48


def _digest(*parts: str | int) -> bytes:
    """Hashes parts with their lengths, so that ("ab", "c") and ("a", "bc") differ."""
    texts = [str(part).encode("utf-8") for part in parts]
    return hashlib.sha256(b"".join(b"%d:%b" % (len(text), text) for text in texts)).digest()
