"""MinHash signatures of rows, by datasketch: how alike two rows are is told by how many of 256 numbers they share.

A row is the set of its runs of five words. datasketch's own LSH index keeps Python objects, several kilobytes a row; so
its signatures are kept in a file here, and `near.py` looks for pairs by sorting.
"""

from collections.abc import Sequence

import numpy as np
from datasketch import MinHash

from jaxwiz.clean.config import NearConfig

SEED = 1
SCHEME = "affine32"  # datasketch's; decides the signatures' values


class Signer:
    """Makes signatures of one kind."""

    def __init__(self, config: NearConfig) -> None:
        self._run_words = config.run_words
        self._hash = MinHash(num_perm=config.permutations, seed=SEED, scheme=SCHEME)

    def sign(self, words: Sequence[str]) -> np.ndarray:
        """Returns the signature of a row's words, uint32 [permutations]; rows without words have the same one."""
        self._hash.clear()
        if words:
            self._hash.update_batch([run.encode("utf-8", "surrogatepass") for run in runs_of(words, self._run_words)])
        return self._hash.hashvalues.copy()


def runs_of(words: Sequence[str], length: int) -> set[str]:
    """Returns the different runs of `length` words; of fewer words the one of them all."""
    last = max(0, len(words) - length)
    return {" ".join(words[start : start + length]) for start in range(last + 1)}
