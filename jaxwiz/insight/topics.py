"""What instructions are about, and how far they spread, without a model: words, their weights, and groups of them.

Instructions become unit vectors of TF-IDF weights over the words that tell them apart; spherical k-means with a fixed
seed makes groups, named by the words in which each differs most from all. The spread of a round is told by two numbers:
its topics' effective number, exp(entropy of their shares), and the mean distance, 1 - cosine, of two of its rows. Words
are compared, not meanings: "list" and "array" are two topics' words.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from jaxwiz.evolve.eliminate import STOP_WORDS

MOST_TERMS = 2000
MOST_TOPICS = 12
ROWS_PER_TOPIC = 4  # at least, so that a small set has few topics
FEWEST_ROWS = 8
TOO_COMMON = 0.5  # of all rows: a word in more of them tells nothing
NAMING_WORDS = 3
ITERATIONS = 25

_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclasses.dataclass(frozen=True)
class Topic:
    """A group of instructions.

    Attributes:
      words: that set it apart, the most telling first.
      shares: by round, the part of its rows that are in the group.
    """

    words: tuple[str, ...]
    shares: dict[int, float]


@dataclasses.dataclass(frozen=True)
class Topics:
    """The topics of a sample of rows.

    Attributes:
      topics: the largest first.
      effective: by round, how many topics of equal size would be as evenly spread: 1 (all in one) to their number.
      distance: by round, the mean of 1 - cosine over its pairs of rows, 0 (all alike) to 1; None for a single row.
      rows: by round, how many were looked at.
    """

    topics: tuple[Topic, ...]
    effective: dict[int, float]
    distance: dict[int, float | None]
    rows: dict[int, int]


def find_topics(texts: Sequence[tuple[int, str]]) -> Topics | None:
    """Returns the topics of (round, instruction) pairs; None if they are too few, or have no telling words."""
    words = [Counter(word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS) for _, text in texts]
    rows_with = Counter(word for row in words for word in row)
    telling = [word for word, count in rows_with.items() if 2 <= count <= TOO_COMMON * len(texts)]
    terms = sorted(telling, key=lambda word: (-rows_with[word], word))[:MOST_TERMS]
    vectors = _vectors(words, terms, rows_with)
    used = np.flatnonzero(vectors.any(axis=1))  # rows of rare or common words alone are about nothing that can be told
    if len(used) < FEWEST_ROWS:
        return None
    rounds = np.array([number for number, _ in texts])[used]
    vectors = vectors[used]
    groups = _group(vectors, min(MOST_TOPICS, len(used) // ROWS_PER_TOPIC))
    sizes = Counter(groups.tolist())
    present = {number: rounds == number for number in sorted(set(rounds.tolist()))}
    everything = vectors.mean(axis=0)
    topics = []
    for group in sorted(sizes, key=lambda one: (-sizes[one], one)):
        stands_out = vectors[groups == group].mean(axis=0) - everything
        named = np.argsort(-stands_out, kind="stable")[:NAMING_WORDS]
        shares = {number: float((groups[rows] == group).mean()) for number, rows in present.items()}
        topics.append(Topic(tuple(terms[term] for term in named if stands_out[term] > 0), shares))
    return Topics(
        topics=tuple(topics),
        effective={
            number: float(np.exp(-sum(p * np.log(p) for topic in topics if (p := topic.shares[number]))))
            for number in present
        },
        distance={number: _mean_distance(vectors[rows]) for number, rows in present.items()},
        rows={number: int(rows.sum()) for number, rows in present.items()},
    )


def _vectors(words: Sequence[Counter[str]], terms: Sequence[str], rows_with: Counter[str]) -> np.ndarray:
    """Returns [rows, terms] unit vectors; a row without any of the terms is zero."""
    place = {term: index for index, term in enumerate(terms)}
    vectors = np.zeros((len(words), len(terms)), np.float32)
    for row, counts in enumerate(words):
        for word, count in counts.items():
            if word in place:
                vectors[row, place[word]] = (1 + np.log(count)) * np.log(len(words) / rows_with[word])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=vectors, where=lengths > 0)


def _group(vectors: np.ndarray, count: int) -> np.ndarray:
    """Returns the group of each row by spherical k-means; first centres are drawn as k-means++ does."""
    draw = np.random.default_rng(0)
    centres = vectors[[draw.integers(len(vectors))]]
    while len(centres) < count:
        away = np.clip(1 - (vectors @ centres.T).max(axis=1), 0, None).astype(np.float64) ** 2
        if away.sum() <= 0:  # fewer different rows than groups
            break
        centres = np.concatenate([centres, vectors[[draw.choice(len(vectors), p=away / away.sum())]]])
    groups = np.full(len(vectors), -1)
    for _ in range(ITERATIONS):
        nearest = (vectors @ centres.T).argmax(axis=1)
        if (nearest == groups).all():
            break
        groups = nearest
        for group in set(groups.tolist()):
            total = vectors[groups == group].sum(axis=0)
            centres[group] = total / np.linalg.norm(total)
    return groups


def _mean_distance(vectors: np.ndarray) -> float | None:
    count = len(vectors)
    if count < 2:
        return None
    total = vectors.sum(axis=0, dtype=np.float64)
    return float(1 - (total @ total - count) / (count * (count - 1)))
