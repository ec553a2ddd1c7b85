"""Near duplicates by sorting are those that comparing every row with every earlier one finds."""

import random
from pathlib import Path

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH

from jaxwiz.clean import near
from jaxwiz.clean.config import NearConfig
from jaxwiz.clean.minhash import SCHEME, SEED, Signer, runs_of
from jaxwiz.clean.near import NONE, banding, find_near

CONFIG = NearConfig()


def documents(count: int) -> list[list[str]]:
    """Returns random texts; half of them change 1 to 8 words of an earlier one."""
    draw = random.Random(7)
    texts: list[list[str]] = []
    for _ in range(count):
        words = [f"w{draw.randrange(400)}" for _ in range(draw.randrange(20, 120))]
        if texts and draw.random() < 0.5:
            words = list(draw.choice(texts))
            for _ in range(draw.randrange(1, 9)):
                words[draw.randrange(len(words))] = "changed"
        texts.append(words)
    return texts


@pytest.fixture(scope="module")
def signed() -> tuple[list[list[str]], np.ndarray]:
    texts = documents(400)
    signer = Signer(CONFIG)
    return texts, np.stack([signer.sign(words) for words in texts])


def by_brute_force(signatures: np.ndarray, left_out: set[int], threshold: float) -> dict[int, int]:
    kept: list[int] = []
    found = {}
    for row in range(len(signatures)):
        if row in left_out:
            continue
        alike = (signatures[kept] == signatures[row]).mean(axis=1) if kept else np.zeros(1)
        if alike.max() >= threshold:
            found[row] = kept[int(alike.argmax())]
        else:
            kept.append(row)
    return found


def search(signatures: np.ndarray, folder: Path, left_out: set[int] = frozenset()) -> dict[int, int]:  # type: ignore
    path = folder / "signatures.u32"
    path.write_bytes(signatures.tobytes())
    marks = np.array([row in left_out for row in range(len(signatures))], np.bool_)
    result = find_near(path, len(signatures), marks, CONFIG, folder)
    assert {one.name for one in folder.iterdir()} == {"signatures.u32"}
    for row in np.flatnonzero(result.match != NONE):
        alike = (signatures[row] == signatures[result.match[row]]).mean()
        assert result.similarity[row] == pytest.approx(alike) and alike >= CONFIG.threshold
    return {int(row): int(result.match[row]) for row in np.flatnonzero(result.match != NONE)}


def test_as_comparing_all_pairs_does(signed, tmp_path: Path):
    _, signatures = signed
    expected = by_brute_force(signatures, set(), CONFIG.threshold)
    assert len(expected) > 40
    assert search(signatures, tmp_path) == expected


def test_rows_that_are_out_are_compared_with_none(signed, tmp_path: Path):
    _, signatures = signed
    out = set(range(0, 400, 3))
    assert search(signatures, tmp_path, out) == by_brute_force(signatures, out, CONFIG.threshold)


def test_in_small_pieces_too(signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, signatures = signed
    expected = search(signatures, tmp_path)
    monkeypatch.setattr(near, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(near, "BANDS_AT_ONCE", 5)
    assert search(signatures, tmp_path) == expected


def test_no_rows_and_one_row(tmp_path: Path):
    assert search(np.empty((0, 256), np.uint32), tmp_path) == {}
    assert search(np.ones((1, 256), np.uint32), tmp_path) == {}
    assert search(np.ones((3, 256), np.uint32), tmp_path) == {1: 0, 2: 0}


def test_a_row_with_very_many_candidates_is_compared_with_the_likeliest(tmp_path: Path, monkeypatch):
    draw = np.random.default_rng(0)
    signatures = draw.integers(0, 1 << 32, (300, 256), np.uint32)
    signatures[:, :6] = 1  # all share a band, and nothing else
    signatures[299, 6:] = signatures[123, 6:]
    monkeypatch.setattr(near, "MOST_COMPARED", 2)
    assert search(signatures, tmp_path) == {299: 123}


def test_candidates_are_those_of_datasketchs_own_index(signed, tmp_path: Path):
    """With its index of the same bands, each row queried against those kept before it."""
    texts, signatures = signed
    index = MinHashLSH(num_perm=256, params=banding(CONFIG))
    expected = {}
    for row, words in enumerate(texts):
        sketch = MinHash(num_perm=256, seed=SEED, scheme=SCHEME)
        sketch.update_batch([run.encode() for run in runs_of(words, 5)])
        assert (sketch.hashvalues == signatures[row]).all()
        alike = {int(other): (signatures[int(other)] == signatures[row]).mean() for other in index.query(sketch)}
        best = min(alike, key=lambda other: (-alike[other], other), default=NONE)
        if best != NONE and alike[best] >= CONFIG.threshold:
            expected[row] = best
        else:
            index.insert(str(row), sketch)
    assert search(signatures, tmp_path) == expected


def test_the_threshold_is_one_of_jaccard_similarity(signed, tmp_path: Path):
    texts, signatures = signed
    runs = [runs_of(words, 5) for words in texts]
    found = search(signatures, tmp_path)
    jaccard = [len(runs[row] & runs[other]) / len(runs[row] | runs[other]) for row, other in found.items()]
    assert min(jaccard) > 0.7 - 4 * 0.03  # four standard errors of 256 permutations
    kept = [row for row in range(len(texts)) if row not in found]
    most = max(
        len(runs[row] & runs[other]) / len(runs[row] | runs[other])
        for place, row in enumerate(kept)
        for other in kept[:place]
    )
    assert most < 0.7 + 4 * 0.03


def test_bands_are_as_wide_as_the_recall_allows():
    assert banding(CONFIG) == (42, 6)
    assert 1 - (1 - 0.7**6) ** 42 > 0.99 > 1 - (1 - 0.7**7) ** 36
    assert banding(NearConfig(permutations=16, threshold=0.1)) == (16, 1)


def test_runs_of_words():
    assert runs_of(["a", "b", "c"], 2) == {"a b", "b c"}
    assert runs_of(["a"], 5) == {"a"}
