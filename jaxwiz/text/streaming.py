"""Text of a growing answer, token by token: never half a character, never any part of a stop string.

What `add` returns, joined, and `finish` at the end, is `decode` of all ids, cut before the stop string that is complete
first, however the text is spread over tokens. Half a character at the end, which has no text, is left out.

Only a window of the newest ids is decoded with each token. It is shortened where its two parts, decoded for themselves,
give what the whole gives, so vocabularies whose spaces depend on what stands before are no special case, and the cost
of an answer grows with its length alone. Where bytes of no character stand in a run of byte tokens, the `tokenizers`
package decodes the whole run to replacements, also what was a character before; here that stays one.
"""

from collections.abc import Sequence

from jaxwiz.text.tokenizer import Tokenizer

_REPLACEMENT = "\ufffd"  # what bytes that are no character decode to
_HALF_CHARACTER = 3  # most bytes of one, each of which may decode to a replacement
_WINDOW_IDS = 8  # the least that stay in the window
_BROKEN_IDS = 32  # with so many in the window, and none of them the end of a character, the bytes are broken


class StreamingText:
    """The text of one answer.

    Attributes:
      stopped: whether a stop string is complete; what comes after it is dropped.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        """Takes the tokenizer, and texts that end the answer, none of them empty."""
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._window: list[int] = []
        self._most_ids = 2 * _WINDOW_IDS
        self._taken = ""  # how much of the window's text went to `_held`
        self._held = ""  # perhaps the beginning of a stop string

    def add(self, token: int) -> str:
        """Returns the text that is certain now and was not before."""
        if self.stopped:
            return ""
        self._window.append(token)
        text = self._decode(self._window)
        if not text.endswith(_REPLACEMENT):
            self._take(text)
            if len(self._window) > self._most_ids:
                self._shorten(text, 0)
        elif len(self._window) > max(self._most_ids, _BROKEN_IDS):
            self._shorten(text, _HALF_CHARACTER + 1)
        return self._certain()

    def finish(self) -> str:
        """Returns what was held back, at the end of the answer."""
        if self.stopped:
            return ""
        text = self._decode(self._window)
        ending = text[-_HALF_CHARACTER:]
        whole = text[: len(text) - len(ending)] + ending.rstrip(_REPLACEMENT)
        if whole.startswith(self._taken):
            self._take(whole)
        certain = self._certain()
        return certain + self._held

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, continues=True)

    def _take(self, text: str) -> None:
        self._held += text[len(self._taken) :]
        self._taken = text

    def _shorten(self, text: str, least_after: int) -> None:
        """Takes the oldest ids, all that can be parted, out of the window, whose text is `text`.

        Args:
          text: of the window.
          least_after: characters that must come behind the parting for no character to lie across it.
        """
        for kept in range(_WINDOW_IDS, len(self._window)):
            before, after = self._decode(self._window[:-kept]), self._decode(self._window[-kept:])
            if len(after) >= least_after and before + after == text:
                if len(before) > len(self._taken):
                    self._take(before)
                del self._window[:-kept]
                self._taken = self._taken[len(before) :]
                self._most_ids = kept + _WINDOW_IDS
                return
        self._most_ids = 2 * len(self._window)

    def _certain(self) -> str:
        """Returns what of the held text cannot be part of a stop string, and holds the rest."""
        held = self._held
        ends = [(place + len(stop), place) for stop in self._stop if (place := held.find(stop)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return held[: min(ends)[1]]
        kept = max((_overlap(held, stop) for stop in self._stop), default=0)
        self._held = held[len(held) - kept :]
        return held[: len(held) - kept]


def _overlap(text: str, stop: str) -> int:
    """Returns how many characters at the end of `text` are the beginning of `stop`, but not all of it, at most."""
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)
