"""Which page of the cache is whose: the host's side of `model/pages.py`.

Pages are counted: requests with a common prefix hold the same pages, which are never written again. A whole page of a
prompt is known by the digest of everything up to its end, and stays known after its request has ended, until its place
is needed; the one longest unused goes first. The table only counts; arrays are the engine's.
"""

import collections
import hashlib
from collections.abc import Sequence

import numpy as np


class NoPageError(Exception):
    """No page is free and none is idle; the cache has to grow."""


class PageTable:
    """Pages 0 to `count` - 1.

    Attributes:
      page_tokens: tokens of a page.
      count: how many pages there are.
      in_use: how many are held by requests.
    """

    def __init__(self, count: int, page_tokens: int) -> None:
        self.page_tokens = page_tokens
        self.count = 0
        self.in_use = 0
        self._free: list[int] = []
        self._holders: list[int] = []
        self._page_of: dict[bytes, int] = {}
        self._digest_of: dict[int, bytes] = {}
        self._idle: collections.OrderedDict[int, None] = collections.OrderedDict()  # known, held by none; oldest first
        self.grow(count)

    def grow(self, count: int) -> None:
        """Adds pages up to `count`."""
        self._free += range(count - 1, self.count - 1, -1)  # taken from the end: low numbers first
        self._holders += [0] * (count - self.count)
        self.count = count

    def digests(self, prompt: Sequence[int]) -> list[bytes]:
        """Returns what each whole page of a prompt is known by, its last token's page left out if that ends it."""
        digest, found = b"", []
        for start in range(0, (len(prompt) - 1) // self.page_tokens * self.page_tokens, self.page_tokens):
            tokens = np.asarray(prompt[start : start + self.page_tokens], np.int32)
            digest = hashlib.sha256(digest + tokens.tobytes()).digest()
            found.append(digest)
        return found

    def shared(self, digests: Sequence[bytes]) -> list[int]:
        """Returns the pages that hold the first of these already, as many as there are, now held once more."""
        pages = []
        for digest in digests:
            page = self._page_of.get(digest)
            if page is None:
                break
            if not self._holders[page]:
                del self._idle[page]
                self.in_use += 1
            self._holders[page] += 1
            pages.append(page)
        return pages

    def know(self, digest: bytes, page: int) -> None:
        """Notes what a page holds, unless another one holds the same."""
        if digest not in self._page_of:
            self._page_of[digest] = page
            self._digest_of[page] = digest

    def take(self) -> int:
        """Returns a page to write to, held once.

        Raises:
          NoPageError: there is none.
        """
        if self._free:
            page = self._free.pop()
        elif self._idle:
            page, _ = self._idle.popitem(last=False)
            del self._page_of[self._digest_of.pop(page)]
        else:
            raise NoPageError
        self._holders[page] = 1
        self.in_use += 1
        return page

    def release(self, pages: Sequence[int]) -> None:
        """Lets go of pages once each. The last ones of a row go first when places are needed."""
        for page in reversed(pages):
            self._holders[page] -= 1
            if not self._holders[page]:
                self.in_use -= 1
                if page in self._digest_of:
                    self._idle[page] = None
                else:
                    self._free.append(page)
