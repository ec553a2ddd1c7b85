"""Topics of instructions: themes are found apart, and the numbers for spread are those of a small case by hand."""

import math

import numpy as np
import pytest

from jaxwiz.insight.topics import _mean_distance, find_topics

THEMES = {
    "sort": "Sort numbers ascending using quicksort partition",
    "web": "Serve website requests behind nginx proxy",
    "tree": "Balance binary trees rotating nodes leftwards",
}


def made(counts: dict[tuple[int, str], int]) -> list[tuple[int, str]]:
    return [
        (number, f"{THEMES[theme]} {theme}{'abcdefghijklmnop'[n]}{'qrst'[number]}")
        for (number, theme), count in counts.items()
        for n in range(count)
    ]


def test_themes_are_told_apart_and_their_shares_counted():
    counts = {(0, "sort"): 4, (1, "sort"): 4, (1, "web"): 4, (1, "tree"): 4}
    topics = find_topics(made(counts))
    assert topics is not None and topics.rows == {0: 4, 1: 12}
    by_theme = {theme: {0: 0.0, 1: 0.0} for theme in THEMES}
    for topic in topics.topics:
        theme = next(theme for theme, text in THEMES.items() if set(topic.words) <= set(text.lower().split()))
        for number, share in topic.shares.items():
            by_theme[theme][number] += share
    for number, shares in ((0, (1, 0, 0)), (1, (1 / 3, 1 / 3, 1 / 3))):
        assert [by_theme[theme][number] for theme in THEMES] == pytest.approx(shares)
    assert topics.effective[0] < topics.effective[1]
    distances = topics.distance
    assert distances[0] == pytest.approx(0.0, abs=1e-6), "words of one row each are no terms"
    assert distances[1] == pytest.approx(1 - 3 * 4 * 3 / (12 * 11), abs=1e-6), "pairs within a theme are alike"


def test_the_effective_number_is_that_of_even_shares():
    topics = find_topics(made({(0, "sort"): 8, (0, "web"): 8, (0, "tree"): 8}))
    assert topics is not None
    entropy = -sum(share * math.log(share) for topic in topics.topics if (share := topic.shares[0]))
    assert topics.effective[0] == pytest.approx(math.exp(entropy)) and topics.effective[0] >= 3 - 1e-9


def test_equal_input_makes_equal_topics():
    texts = made({(0, "sort"): 9, (1, "tree"): 5, (2, "web"): 3})
    assert find_topics(texts) == find_topics(texts)


@pytest.mark.parametrize("texts", [[], [(0, "Sort.")], [(0, "the and of")] * 20, made({(0, "sort"): 5})])
def test_too_little_to_group_is_nothing(texts: list[tuple[int, str]]):
    assert find_topics(texts) is None


def test_distance_by_hand():
    assert _mean_distance(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])) == pytest.approx(2 / 3)
    assert _mean_distance(np.array([[1.0, 0.0]])) is None
