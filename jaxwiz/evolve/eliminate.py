"""The elimination rules, as pure functions that return a reason, or "" for what passes, and the judges' replies, read.

WizardLM's four: judged equal; an apology ("sorry" in fewer than 80 words); nothing but punctuation and stop words; the
prompt's own wording leaked. Beyond the paper an answer must have ended by itself, and an evolution must differ from its
parent. Optional detectors, in `detectors.py`, come on top. Reasons are short names, counted in the summary and kept on
every rejected row.
"""

import re
from collections.abc import Collection
from typing import Literal

from jaxwiz.evolve.detectors import FENCED, adds_words_only, answered_instead, asks_back
from jaxwiz.evolve.operations import LEAK_RUN_WORDS, Operation, runs_of_words, words_of
from jaxwiz.llm.protocol import GenerationResult

APOLOGY_BELOW_WORDS = 80
LEAK_PHRASES = (
    " given prompt ",
    " rewritten prompt ",
    " created prompt ",
)  # the paper's, whatever a prompt's titles are

Verdict = Literal["equal", "not_equal", "unclear"]

# "no" and "not" are left out: they can be the whole of a right answer.
_STOP_WORDS_TEXT = """
a about above after again against all am an and any are as at be because been before being below between both
but by can could did do does doing down during each few for from further had has have having he her here hers him
his how i if in into is it its itself just me more most my myself of off on once only or other our ours out over own
s same she should so some such t than that the their theirs them themselves then there these they this those through
to too under until up us very was we were what when where which while who whom why will with would you your yours
yourself
"""
STOP_WORDS = frozenset(_STOP_WORDS_TEXT.split())
EMPTY_LITERALS = frozenset({"[]", "{}", "()", '""', "''"})

_WORD = re.compile(r"\w+")
_VERDICT = re.compile(r"\W*(not[\s_-]+equal|equal)\W*", re.IGNORECASE)
_SCALE = re.compile(r"\s*/\s*10\b|\bout of (10|ten)\b|\b(from )?1\s*(-|–|to)\s*10\b", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?")


def unfinished(result: GenerationResult) -> str:
    """Returns why an answer does not count as whole: "truncated", "filtered", "too_long", "unfinished", or ""."""
    reasons = {"stop": "", "length": "truncated", "content_filter": "filtered", "context_length": "too_long"}
    return reasons.get(result.finish_reason, "unfinished")


def parse_verdict(reply: str) -> Verdict:
    """Returns the judge's verdict: its reply, first line or first sentence must be exactly a verdict."""
    reply = reply.strip()
    first_line = reply.partition("\n")[0]
    for text in (first_line, re.split(r"[.:;,!]", first_line)[0]):
        if match := _VERDICT.fullmatch(text):
            return "equal" if match.group(1).lower() == "equal" else "not_equal"
    return "unclear"


def parse_score(reply: str) -> int:
    """Returns the one whole number from 1 to 10 that the first line of a reply holds, beside its scale; else 0."""
    numbers = _NUMBER.findall(_SCALE.sub(" ", reply.strip().partition("\n")[0]))
    score = int(numbers[0]) if len(numbers) == 1 and numbers[0].isdecimal() else 0
    return score if 1 <= score <= 10 else 0


def is_apology(response: str) -> bool:
    """Says whether `response` contains the word "sorry", outside fenced code, and has fewer than 80 words in all."""
    if not re.search(r"\bsorry\b", FENCED.sub(" ", response), re.IGNORECASE):
        return False
    return len(response.split()) < APOLOGY_BELOW_WORDS


def is_empty_of_content(response: str) -> bool:
    """Says whether `response` is only punctuation and stop words; an empty literal such as [] is content."""
    if response.strip(" \t\r\n`") in EMPTY_LITERALS:
        return False
    return all(word in STOP_WORDS for word in _WORD.findall(response.casefold().replace("_", " ")))


def leaks_prompt(evolved: str, parent: str, operation: Operation) -> bool:
    """Says whether `evolved` copies wording of the operation's prompt that did not already stand in `parent`."""
    evolved_words, parent_words = words_of(evolved), words_of(parent)
    phrases = (*LEAK_PHRASES, *operation.leak_phrases)
    if any(phrase in evolved_words and phrase not in parent_words for phrase in phrases):
        return True
    copied = runs_of_words(evolved_words, LEAK_RUN_WORDS) & operation.leak_runs
    return any(f" {run} " not in parent_words for run in copied)


def fault_of_evolution(
    parent: str, result: GenerationResult, operation: Operation, detectors: Collection[str] = ()
) -> str:
    """Returns why an evolved instruction is rejected before it is judged, or "".

    Args:
      parent: the instruction as the prompt showed it.
      result: the evolver's answer.
      operation: what was asked for.
      detectors: which of "answered_instead", "asks_back" and "added_words_only" apply as well.
    """
    evolved = result.text.strip()
    if reason := unfinished(result):
        return f"evolution_{reason}"
    if is_empty_of_content(evolved):
        return "evolution_empty"
    if evolved == parent.strip():
        return "unchanged"
    if leaks_prompt(evolved, parent, operation):
        return "leak"
    if "answered_instead" in detectors and answered_instead(evolved, parent):
        return "answered_instead"
    # A parent may itself say "please provide"; then the evolution may as well.
    if "asks_back" in detectors and asks_back(evolved) and not asks_back(parent):
        return "asks_back"
    if "added_words_only" in detectors and adds_words_only(evolved, parent):
        return "added_words_only"
    return ""


def fault_of_answer(result: GenerationResult, detectors: Collection[str] = ()) -> str:
    """Returns why an answer makes its instruction be rejected, or ""."""
    if reason := unfinished(result):
        return f"answer_{reason}"
    if is_empty_of_content(result.text):
        return "answer_empty"
    if is_apology(result.text):
        return "apology"
    if "asks_back" in detectors and asks_back(result.text):
        return "answer_asks_back"
    return ""
