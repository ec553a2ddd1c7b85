"""Optional detectors of failed evolutions, beyond the papers' rules: pure functions on texts.

They are heuristics: each is switched on by name in the config (`eliminate.detectors`), and what it rejects is counted
apart, so that its false alarms can be looked at in rejected.jsonl. Those that need more than two texts, near duplicates
and answers that don't run, are in `checks.py`.
"""

import re

from jaxwiz.evolve.operations import words_of

# Reasons that are not the papers'; `checks.py` has the last four.
_PURE = ("answered_instead", "asks_back", "answer_asks_back", "added_words_only")
DETECTED = frozenset(
    {*_PURE, "contaminated", "near_duplicate", "answer_does_not_parse", "answer_does_not_run", "answer_does_not_end"}
)
FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)

_STARTS_AS_ANSWER = re.compile(
    r"```|(?-i:(?:def|class) \w+|import \w+|from \w+ import\b|#include\b)|(?:sure|certainly|of course)\b"
    r"|here(?:'s|’s| is) (?:\S+ ){1,4}?(?:function|solution|implementation|answer|program|script|example|code)\b",
    re.IGNORECASE,
)
_STARTS_ASKING_BACK = re.compile(r"(?:understood|thank you|sure)\b", re.IGNORECASE)
_CODE_LINE = re.compile(  # of code without a fence: a definition, a statement, a call or an assignment by itself
    r"^[ \t]*(?:(?:def|class|import|from|return|for|while|if|elif|else|try|except|with|raise|assert|print)\b.*[:)\w\]]"
    r"|[\w.\[\]]+ *(?:[-+*/|&]?=(?!=)|\().*|[{}();]+)[ \t]*$"
)


def answered_instead(evolved: str, parent: str) -> bool:
    """Says whether `evolved` begins like an answer, or is a code block alone, while `parent` does not begin so."""
    text = evolved.strip()
    if _STARTS_AS_ANSWER.match(parent.strip()):
        return False
    return bool(_STARTS_AS_ANSWER.match(text)) or ("```" in text and not FENCED.sub("", text).strip())


def asks_back(response: str) -> bool:
    """Says whether `response` asks for its task: "Understood ...?", "Thank you ...?", "Sure ...?", "please provide"."""
    text = response.strip()
    if _STARTS_ASKING_BACK.match(text) and text.endswith("?"):
        return True
    return " please provide " in words_of(text)


def adds_words_only(evolved: str, parent: str) -> bool:
    """Says whether `parent` holds code, and `evolved` is the same code and the same words with more words put in.

    Where a task is about a piece of code, an evolution that leaves the code alone and keeps every word has mostly added
    decoration. That may be wanted of "add a constraint", so this is a detector to look at before it is relied on.
    """
    parent_code, parent_words = _code_and_words(parent)
    evolved_code, evolved_words = _code_and_words(evolved)
    if not parent_code or evolved_code != parent_code or len(evolved_words) <= len(parent_words):
        return False
    following = iter(evolved_words)
    return all(word in following for word in parent_words)


def _code_and_words(text: str) -> tuple[list[str], list[str]]:
    """Returns the lines of code in a text, and the words of all else, both in order."""
    code: list[str] = []
    prose: list[str] = []
    is_fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif line.strip():
            (code if is_fenced or _CODE_LINE.match(line) else prose).append(line.rstrip())
    return code, words_of("\n".join(prose)).split()
