"""Evolution operations: prompts made from files, and what of their wording must not leak into an answer.

An operation is a method file below a family's folder, as "in_depth/deepen"; the family's `frame.txt` holds what its
methods share. Slots look like <<PARENT>>. A template is cut at its slots once, when it is loaded, and users' text is
laid between the pieces: it is never itself searched, formatted or escaped, so it passes through byte for byte.
"""

import dataclasses
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from jaxwiz.files import UserError

TITLE_WORDS = 2  # least words of a title that counts as wording of the prompt
SENTENCE_WORDS = 4  # the same of a method's first line
LEAK_RUN_WORDS = 8

_SLOT = re.compile(r"<<([A-Z]+)>>")
_WORD = re.compile(r"\w+")


class PromptError(UserError):
    """A prompt file that is missing or malformed; the message names the file and the rule."""


@dataclasses.dataclass(frozen=True)
class PromptTemplate:
    """A prompt with slots.

    Attributes:
      pieces: fixed texts around the slots, one more than there are slots.
      slots: the slots' names in order.
    """

    pieces: tuple[str, ...]
    slots: tuple[str, ...]

    def render(self, **values: str) -> str:
        """Returns the prompt with every slot filled; values pass through byte for byte."""
        parts = [self.pieces[0]]
        for slot, piece in zip(self.slots, self.pieces[1:], strict=True):
            parts += [values[slot.lower()], piece]
        return "".join(parts)


@dataclasses.dataclass(frozen=True)
class Operation:
    """One way to evolve a prompt.

    Attributes:
      name: "family/method".
      template: the prompt, with the slot PARENT.
      leak_phrases: section titles and the method's sentence, as lower-case words.
      leak_runs: every run of LEAK_RUN_WORDS words of the template, as lower-case words.
    """

    name: str
    template: PromptTemplate
    leak_phrases: tuple[str, ...]
    leak_runs: frozenset[str]

    def prompt(self, parent: str) -> str:
        """Returns the request to evolve `parent`."""
        return self.template.render(parent=parent)


@dataclasses.dataclass(frozen=True)
class Prompts:
    """All wording of a run.

    Attributes:
      operations: by name.
      judge: template with the slots FIRST and SECOND.
      difficulty: template with the slot TASK.
    """

    operations: dict[str, Operation]
    judge: PromptTemplate
    difficulty: PromptTemplate


def load_prompts(names: Iterable[str], folder: Path | None = None) -> Prompts:
    """Returns the judges' and the named operations' prompts.

    Args:
      names: operations, "family/method".
      folder: files in it go before those of this package; None: this package's alone.

    Raises:
      PromptError: an unknown operation, or a template with the wrong slots.
    """
    operations = {name: _load_operation(name, folder) for name in sorted(names)}
    judge = parse_template(_read("judge.txt", folder), ("FIRST", "SECOND"), "judge.txt")
    difficulty = parse_template(_read("difficulty.txt", folder), ("TASK",), "difficulty.txt")
    return Prompts(operations, judge, difficulty)


def parse_template(text: str, slots: tuple[str, ...], source: str) -> PromptTemplate:
    """Returns `text` cut at its slots, of which each of `slots` must occur exactly once and no other.

    Raises:
      PromptError: naming `source` and what is wrong.
    """
    parts = _SLOT.split(text)
    found = tuple(parts[1::2])
    if sorted(found) != sorted(slots):
        raise PromptError(f"{source}: has the slots {list(found)}; it must have each of {list(slots)} exactly once")
    return PromptTemplate(tuple(parts[0::2]), found)


def words_of(text: str) -> str:
    """Returns the words of `text` in lower case, single spaces between and around them, for whole-word searches."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def runs_of_words(words: str, length: int) -> set[str]:
    """Returns every run of `length` words in a result of `words_of`."""
    split = words.split()
    return {" ".join(split[start : start + length]) for start in range(len(split) - length + 1)}


def _load_operation(name: str, folder: Path | None) -> Operation:
    family, _, method_name = name.partition("/")
    if not re.fullmatch(r"\w+/\w+", name) or method_name == "frame":
        raise PromptError(f"operations: {name!r}: must be 'family/method', as in 'in_depth/deepen'")
    frame_file, method_file = f"{family}/frame.txt", f"{name}.txt"
    method = _read(method_file, folder).strip()
    frame = parse_template(_read(frame_file, folder), ("METHOD", "PARENT"), frame_file)
    if _SLOT.search(method):
        raise PromptError(f"{method_file}: has a slot; slots belong in {frame_file}")
    text = frame.render(method=method, parent="<<PARENT>>")
    titles = [line for piece in frame.pieces for line in piece.splitlines() if line.startswith("#")]
    sentence = method.partition("\n")[0]
    fixed = words_of(text.replace("<<PARENT>>", ""))
    return Operation(
        name=name,
        template=parse_template(text, ("PARENT",), method_file),
        leak_phrases=tuple(
            words_of(phrase)
            for phrase, fewest in (*((title, TITLE_WORDS) for title in titles), (sentence, SENTENCE_WORDS))
            if len(words_of(phrase).split()) >= fewest  # "### Task" is no wording of ours
        ),
        leak_runs=frozenset(runs_of_words(fixed, LEAK_RUN_WORDS)),
    )


def _read(file: str, folder: Path | None) -> str:
    if folder is not None and (folder / file).is_file():
        data = (folder / file).read_bytes()
    else:
        ours = resources.files("jaxwiz.evolve") / "prompts" / file
        if not ours.is_file():
            where = f"neither in {folder} nor" if folder is not None else "not"
            raise PromptError(
                f"operations: no prompt file {file}, {where} among jaxwiz/evolve/prompts; see the names there"
            )
        data = ours.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise PromptError(f"{file}: not UTF-8; convert it") from None
