"""How much the engine does at a time, on a CPU and elsewhere.

Each call of a device program costs a device about as much as it has to wait for the host meanwhile. A CPU waits for
hardly anything, so there little is done at a time: answers stream evenly, prompts hold them up shortly, and a slot
whose answer has ended is refilled soon. Accelerators are kept busy by longer calls.
"""

import dataclasses
from collections.abc import Iterator

PAGE_TOKENS = 64  # of the cache, and so what prompts are shared by


@dataclasses.dataclass(frozen=True)
class Pace:
    """Sizes of calls.

    Attributes:
      chunks: widths in which prompts are read, the smallest first.
      prompt_tokens: read at most in a step while other slots decode; a longer prompt is read over several steps.
      steps: decoded in a block, at whose end slots are refilled.
      page_by_page: whether attention goes over a row's pages one by one; see `model/pages.py`.
    """

    chunks: tuple[int, ...]
    prompt_tokens: int
    steps: int
    page_by_page: bool

    def chunks_between(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yields (start, tokens, width) of the chunks in which tokens `start` to `end` - 1 are read.

        They are whole ones of the largest width, then one of the smallest width that holds the rest.
        """
        while start < end:
            count = min(end - start, self.chunks[-1])
            yield start, count, next(width for width in self.chunks if width >= count)
            start += count

    def columns_of_block(self, pages: int, most: int) -> int | None:
        """Returns how many of a row's pages a decode step attends to at once: a power of 2, or all; None: one by one.

        Args:
          pages: at least so many.
          most: how many a row can have.
        """
        return None if self.page_by_page else min(most, 1 << (pages - 1).bit_length())

    def columns_of_chunk(self, pages: int, most: int) -> int | None:
        """Returns the same for a prompt's chunk, a power of 4: so programs are fewer, and its time lies in products."""
        return None if self.page_by_page else min(most, 1 << 2 * -(-(pages - 1).bit_length() // 2))


ON_CPU = Pace(chunks=(16, PAGE_TOKENS), prompt_tokens=256, steps=4, page_by_page=True)
ELSEWHERE = Pace(chunks=(PAGE_TOKENS, 512), prompt_tokens=2048, steps=16, page_by_page=False)
