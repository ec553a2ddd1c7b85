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
    """

    chunks: tuple[int, ...]
    prompt_tokens: int
    steps: int

    def chunks_between(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yields (start, tokens, width) of the chunks in which tokens `start` to `end` - 1 are read.

        They are whole ones of the largest width, then one of the smallest width that holds the rest.
        """
        while start < end:
            count = min(end - start, self.chunks[-1])
            yield start, count, next(width for width in self.chunks if width >= count)
            start += count


ON_CPU = Pace(chunks=(16, PAGE_TOKENS), prompt_tokens=256, steps=4)
ELSEWHERE = Pace(chunks=(PAGE_TOKENS, 512), prompt_tokens=2048, steps=16)
