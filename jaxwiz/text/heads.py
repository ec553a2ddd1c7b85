"""Texts that begin alike, as all instructions below Alpaca's header do: what they have in common is encoded once.

A text is cut before the full stop that ends its first paragraph, where a letter stands before it. Neither part's tokens
depend on the other there, for tokenizers that `can_cut` accepts: they change no character, and split a text by one of
the expressions below, all of which end a word at its last letter, whatever follows, and begin anew at a full stop.
Tokens are then made within the parts alone. Of other tokenizers nothing is claimed, and their texts stay whole.
"""

from collections.abc import Callable, Sequence
from typing import Any

HEAD_CHARACTERS = 400  # first paragraphs longer than this are nobody's header
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_EXPRESSIONS = (_GPT2, _LLAMA3, _QWEN2)

Encode = Callable[[Sequence[str]], list[list[int]]]


def can_cut(spec: dict[str, Any]) -> bool:
    """Returns whether it is known that texts may be cut; `spec` is a tokenizer.json's content."""
    splitter = spec.get("pre_tokenizer") or {}
    steps = splitter.get("pretokenizers", [splitter])
    model = spec["model"]
    return (
        spec.get("normalizer") is None
        and model.get("type") == "BPE"
        and not model.get("dropout")
        # One that isn't special is looked for in the text before it is split, and may span a cut.
        and all(token["special"] for token in spec.get("added_tokens") or ())
        and all(map(_step_allows, steps))
        and any(_step_splits(step) for step in steps)
    )


def _step_allows(step: dict[str, Any]) -> bool:
    kind = step.get("type")
    return kind == "Digits" or (kind == "ByteLevel" and not step.get("add_prefix_space", True)) or _step_splits(step)


def _step_splits(step: dict[str, Any]) -> bool:
    if step.get("type") == "ByteLevel":
        return bool(step.get("use_regex", True)) and not step.get("add_prefix_space", True)
    pattern = (step.get("pattern") or {}).get("Regex")
    isolates = step.get("type") == "Split" and step.get("behavior") == "Isolated" and not step.get("invert")
    return isolates and pattern in _EXPRESSIONS


def encode_with_shared_heads(texts: Sequence[str], encode: Encode) -> list[list[int]]:
    """Returns `encode(texts)`, encoding beginnings that several texts have in common only once.

    Args:
      texts: any texts.
      encode: of a tokenizer that `can_cut` accepts.
    """
    cuts = list(map(_cut, texts))
    heads = sorted({text[:cut] for text, cut in zip(texts, cuts, strict=True) if cut})
    if not heads or 2 * len(heads) > sum(map(bool, cuts)):
        return encode(texts)
    encoded = {"": [], **dict(zip(heads, encode(heads), strict=True))}
    tails = encode([text[cut:] for text, cut in zip(texts, cuts, strict=True)])
    return [encoded[text[:cut]] + tail for text, cut, tail in zip(texts, cuts, tails, strict=True)]


def _cut(text: str) -> int:
    """Returns where a text is cut; 0: nowhere."""
    place = text.find(".\n\n", 1, HEAD_CHARACTERS)
    return place if place > 0 and text[place - 1].isascii() and text[place - 1].isalpha() else 0
