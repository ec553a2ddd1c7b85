"""What cleaning reads and what it answers: a training row as text, and why a row must go. Imports nothing heavy."""

import dataclasses
import re
import unicodedata


@dataclasses.dataclass(frozen=True)
class Text:
    """A training row, as far as cleaning looks at it.

    Attributes:
      key: names the row in reports, for instance "evolved.jsonl:17".
      instruction: all that the user asks, with the input.
      answer: all that the model is to learn to answer.
    """

    key: str
    instruction: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Exclusion:
    """Why a row must go.

    Attributes:
      key: of the row.
      reason: "duplicate", "near_duplicate" or "contaminated".
      tier: which test found it. Of duplicates: "exact", "near"; of contamination: see `jaxwiz.clean.config.TIERS`.
      match: what it is like: the key of the row that stays, or benchmark and task, for instance "mbpp Mbpp/11".
      detail: the evidence in a line, for people.
    """

    key: str
    reason: str
    tier: str
    match: str
    detail: str


def normalise(text: str) -> str:
    """Returns `text` NFKC-normalised, in lower case, with every run of white space made one space."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


_WORD = re.compile(r"\w+")


def words_of(normal: str) -> list[str]:
    """Returns the words of a normalised text: runs of letters, digits and underscores."""
    return _WORD.findall(normal)
