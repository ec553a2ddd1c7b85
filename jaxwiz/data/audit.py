"""Checks packed rows one by one against what every dataset promises, from the tokens alone.

    jaxwiz audit runs/wizardcoder/data

What an answer's borders look like is learnt from the template itself: a few conversations are laid out and encoded, and
the tokens that stand before every answer, and at the end of every answer, are what a loss mask must begin after and end
with. Rows are read in order and forgotten, so memory does not grow with the dataset.

It does not look into the sources: whether an answer is right, or was meant to be there, is not its matter.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from jaxwiz.data.rows import RowReader
from jaxwiz.files import UserError
from jaxwiz.text.encoding import encode_one
from jaxwiz.text.messages import Message
from jaxwiz.text.templates import Template
from jaxwiz.text.tokenizer import Tokenizer

Check = Literal["zero-loss row", "EOS untrained", "doubled BOS", "mask outside the answer", "unknown id", "truncated"]
CHECKS: dict[Check, str] = {
    "zero-loss row": "every row and every example in it has tokens that bear loss",
    "EOS untrained": "the EOS that ends an example bears loss",
    "doubled BOS": "no BOS follows another",
    "mask outside the answer": "loss is between where the template opens and closes an answer, never in padding",
    "unknown id": "ids are in the tokenizer's vocabulary",
    "truncated": "an example begins at position 0, goes on without a gap and ends in EOS",
}
_PROBES = (
    (Message("user", "Add two."), Message("assistant", "1 + 1")),
    (Message("user", "Sort a list", "[3, 1]"), Message("assistant", "sorted(x)\n")),
    (Message("system", "Be brief."), Message("user", "Why?"), Message("assistant", "So.")),
    (
        *(Message("user", "Say a word!"), Message("assistant", "Tree")),
        *(Message("user", "another one\n"), Message("assistant", "`stone`")),
    ),
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A fault in a row.

    Attributes:
      check: the key of CHECKS that found it.
      shard: file name.
      row: number in the shard, from 0.
      number: number in the split, from 0.
      detail: what was found, and at which token of the row.
    """

    check: Check
    shard: str
    row: int
    number: int
    detail: str


@dataclasses.dataclass(frozen=True)
class Rules:
    """What the tokens of a row are held against.

    Attributes:
      vocab_size: ids are from 0 to below it.
      bos_id: begins each example; None: the tokenizer adds none.
      eos_id: ends each example.
      opening: tokens that stand before every answer, without loss.
      closing: tokens that end every answer, with loss.
    """

    vocab_size: int
    bos_id: int | None
    eos_id: int
    opening: tuple[int, ...]
    closing: tuple[int, ...]


def rules_of(tokenizer: Tokenizer, template: Template) -> Rules:
    """Returns the rules of a tokenizer with a template.

    Raises:
      UserError: the template lays out none of the conversations that it is asked for.
    """
    before: list[list[int]] = []
    answers: list[list[int]] = []
    for probe in _PROBES:
        try:
            tokens, trained = encode_one(tokenizer, template.conversation(probe))
        except UserError:  # some chat templates allow no system message, or no second turn
            continue
        ids, end = list(tokens), 0
        for begin, stop in _spans(np.asarray(trained)):
            before.append(ids[end:begin])
            answers.append(ids[begin:stop])
            end = stop
    if not before:
        raise UserError(f"template {template.name!r}: lays out no conversation, so there is nothing to compare with")
    return Rules(
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id if tokenizer.adds_bos else None,
        eos_id=tokenizer.eos_id,
        opening=_common_end(before),
        closing=_common_end(answers),
    )


def audit_rows(reader: RowReader, rules: Rules) -> Iterator[list[Finding]]:
    """Yields the findings of each row, in order.

    Args:
      reader: of one split.
      rules: of the tokenizer and template that it was made with.
    """
    for number, row in enumerate(reader):
        faults = check_row(row, rules)
        path, place = reader.locate(number) if faults else (None, 0)
        yield [Finding(check, path.name, place, number, detail) for check, detail in faults if path]


def check_row(row: Mapping[str, np.ndarray], rules: Rules) -> list[tuple[Check, str]]:
    """Returns the faults of one row as (check, detail), details naming the token, from 0.

    Args:
      row: tokens, loss_mask, segment_ids and positions, each [T].
      rules: what it must keep to.
    """
    tokens, mask, segments, positions = (row[n] for n in ("tokens", "loss_mask", "segment_ids", "positions"))
    faults: list[tuple[Check, str]] = []
    unknown = np.flatnonzero((tokens < 0) | (tokens >= rules.vocab_size))
    if len(unknown):
        at = unknown[0]
        faults.append(
            ("unknown id", f"{tokens[at]} at token {at}, the vocabulary has {rules.vocab_size}; {len(unknown)} in all")
        )
    if not segments.any():
        faults.append(("zero-loss row", "it is empty"))
    in_padding = np.flatnonzero(mask & (segments == 0))
    if len(in_padding):
        faults.append(("mask outside the answer", f"token {in_padding[0]} is padding and bears loss"))
    borders = np.flatnonzero(np.diff(segments)) + 1
    for begin, end in zip([0, *borders.tolist()], [*borders.tolist(), len(segments)], strict=True):
        if segments[begin]:
            example = slice(begin, end)
            found = _check_example(tokens[example], mask[example], positions[example], rules)
            where = f"example {segments[begin]}, tokens {begin} to {end - 1}"
            faults += [(check, f"{where}: {detail}") for check, detail in found]
    return faults


def _check_example(
    tokens: np.ndarray, mask: np.ndarray, positions: np.ndarray, rules: Rules
) -> list[tuple[Check, str]]:
    faults: list[tuple[Check, str]] = []
    if not np.array_equal(positions, np.arange(len(tokens))):
        faults.append(("truncated", f"positions go from {positions[0]} to {positions[-1]} over {len(tokens)} tokens"))
    elif rules.bos_id is not None and tokens[0] != rules.bos_id:
        faults.append(("truncated", f"begins with id {tokens[0]} instead of BOS {rules.bos_id}"))
    if tokens[-1] != rules.eos_id:
        faults.append(("truncated", f"ends with id {tokens[-1]} instead of EOS {rules.eos_id}"))
    elif not mask[-1]:
        faults.append(("EOS untrained", "its EOS bears no loss"))
    if rules.bos_id is not None:
        of_bos = tokens == rules.bos_id
        doubled = np.flatnonzero(of_bos[1:] & of_bos[:-1])
        if len(doubled):
            faults.append(("doubled BOS", f"BOS at its tokens {doubled[0]} and {doubled[0] + 1}"))
    spans = _spans(mask)
    if not spans:
        faults.append(("zero-loss row", "no token of this example bears loss"))
    ids, previous = tokens.tolist(), 0
    for begin, end in spans:
        fault = _span_fault(ids, previous, begin, end, rules)
        if fault:
            faults.append(("mask outside the answer", fault))
        previous = end
    return faults


def _span_fault(ids: list[int], previous: int, begin: int, end: int, rules: Rules) -> str:
    """Returns what is wrong with a span that bears loss, or "" where nothing is."""
    opening, closing = list(rules.opening), list(rules.closing)
    if begin == 0:
        return "loss from its first token on"
    if ids[max(begin - len(opening), previous) : begin] != opening:
        return f"loss begins at its token {begin}, which does not follow the opening of an answer"
    # Whether the very last token is as it should be is what the checks of EOS say.
    if end < len(ids) - 1 and ids[end - len(closing) : end] != closing:
        return f"loss ends before its token {end}, where no answer ends"
    past = [place for place in range(begin, end - len(closing)) if ids[place : place + len(closing)] == closing]
    if closing and past and ids[past[0] + len(closing)] != closing[-1]:
        return f"loss goes on after its token {past[0] + len(closing) - 1}, where an answer ends"
    return ""


def _spans(mask: np.ndarray) -> list[tuple[int, int]]:
    """Returns where each run of true values begins and ends."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _common_end(parts: Sequence[list[int]]) -> tuple[int, ...]:
    shortest = min(parts, key=len)
    for length in range(len(shortest), 0, -1):
        if all(part[-length:] == shortest[-length:] for part in parts):
            return tuple(shortest[-length:])
    return ()
