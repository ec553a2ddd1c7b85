"""Jinja chat templates, as Hugging Face tokenizers bring them, cut into pieces with exact loss spans.

A conversation is rendered whole, and again up to each answer, with the opening of an answer and with the answer itself.
If each shorter rendering is how the longer one begins, the answer is what lies between; the token that ends its turn is
trained with it. A template that renders earlier turns otherwise once later ones follow can't be cut so, and says so.

The templates are code from elsewhere: they run in Jinja's sandbox, with the settings and helper functions that
transformers gives them, and see the messages alone. Control tokens in a message are kept from being taken for the
template's own: a character that the template doesn't know breaks them while it renders. A template that asks for the
date (`strftime_now`) gives other data on another day.
"""

import dataclasses
import datetime
import functools
import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from jaxwiz.files import UserError, sha256_of_bytes
from jaxwiz.text.messages import Message
from jaxwiz.text.pieces import END, Piece, control, until_last_trained
from jaxwiz.text.tokenizer import ControlToken

# Unicode's noncharacters: no template acts on them, and texts hardly hold one, let alone all.
_SHIELDS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))
_SHORTEST = (Message("user", "instruction"), Message("assistant", "answer"))


class TemplateError(UserError):
    """A chat template that cannot be used, or a conversation that it refuses; the message says why."""


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """A Jinja chat template; see `text.templates.Template` for its methods.

    Attributes:
      name: what configs call it.
      source: its Jinja text.
      controls: the tokenizer's control tokens.
      roles: what the tokenizer calls some of them, such as "bos_token": the template's variables.
    """

    name: str
    source: str
    controls: tuple[ControlToken, ...]
    roles: dict[str, str]

    def __post_init__(self) -> None:
        self.conversation(_SHORTEST)

    @property
    def digest(self) -> str:
        """SHA-256 over its text and its variables."""
        return sha256_of_bytes(json.dumps([self.source, self.roles], sort_keys=True).encode())

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The control tokens that end a turn."""
        pieces = self.conversation(_SHORTEST)
        return tuple(dict.fromkeys(piece.text for piece in pieces if piece.kind == "control" and piece.trained))

    def conversation(self, messages: Sequence[Message]) -> list[Piece]:
        """Returns the pieces of a whole conversation; see `Template.conversation`.

        Raises:
          TemplateError: the template refuses the conversation, or cannot be cut into prompts and answers.
        """
        shield, shielded = self._shield(messages)
        whole = self._render(shielded)
        return [*until_last_trained(self._pieces(whole, self._answers(shielded, whole), shield)), END]

    def prompt(self, messages: Sequence[Message]) -> list[Piece]:
        """Returns the pieces before the next answer, cut at earlier answers as in training; see `Template.prompt`.

        Raises:
          TemplateError: the template refuses the conversation.
        """
        shield, shielded = self._shield(messages)
        whole = self._render(shielded, answer_follows=True)
        try:
            answers = self._answers(shielded, whole)
        except TemplateError:
            answers = []  # never trained in several turns either, so nothing says where to cut
        return self._pieces(whole, answers, shield)

    def _answers(self, messages: list[dict[str, str]], whole: str) -> list[tuple[int, int]]:
        """Returns where each answer, with what ends its turn, begins and ends in the whole rendering."""
        spans: list[tuple[int, int]] = []
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            number = len(spans) + 1
            before = self._render(messages[:place], answer_follows=True)
            after = whole if place + 1 == len(messages) else self._render(messages[: place + 1])
            if not whole.startswith(before):
                self._fail(f"the prompt of answer {number} is not how the whole conversation begins", before, whole)
            if not whole.startswith(after):
                self._fail(f"answer {number} is rendered otherwise once more messages follow it", after, whole)
            if message["content"].strip() not in whole[len(before) : len(after)]:
                self._fail(f"what follows the prompt of answer {number} does not hold the answer", before, whole)
            spans.append((len(before), len(after)))
        return spans

    def _pieces(self, whole: str, answers: list[tuple[int, int]], shield: str) -> list[Piece]:
        pieces = []
        done = 0
        for begin, end in answers:
            pieces += self._cut(whole[done:begin], shield) + _trained(self._cut(whole[begin:end], shield))
            done = end
        return pieces + self._cut(whole[done:], shield)

    def _shield(self, messages: Sequence[Message]) -> tuple[str, list[dict[str, str]]]:
        """Returns the messages as templates see them, control tokens in them broken by a character, and which."""
        texts = "".join(message.text for message in messages)
        shield = next((shield for shield in _SHIELDS if shield not in texts), None)
        if shield is None:
            raise TemplateError(f"template = {self.name!r}: a text with all of U+FDD0 to U+FDEF; such a row is no text")
        known = _patterns(self.controls)[0]

        def broken(match: re.Match[str]) -> str:
            return match[0][0] + shield + match[0][1:]

        return shield, [{"role": message.role, "content": known.sub(broken, message.text)} for message in messages]

    def _cut(self, rendered: str, shield: str) -> list[Piece]:
        """Returns the control tokens of a rendering and the texts between them, as they were before `_shield`."""
        pieces = []
        begin = 0
        for match in _patterns(self.controls)[1].finditer(rendered):
            pieces += [Piece(rendered[begin : match.start()].replace(shield, "")), control(match[0].strip())]
            begin = match.end()
        pieces.append(Piece(rendered[begin:].replace(shield, "")))
        return [piece for piece in pieces if piece.text]

    def _render(self, messages: list[dict[str, str]], answer_follows: bool = False) -> str:
        import jinja2

        try:
            return _compile(self.source).render(
                messages=messages, add_generation_prompt=answer_follows, tools=None, documents=None, **self.roles
            )
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"template = {self.name!r}: not a Jinja template (line {error.lineno}: {error.message}); correct it"
            ) from None
        except Exception as error:  # a template is a program: it may raise anything
            roles = ", ".join(message["role"] for message in messages)
            raise TemplateError(
                f"template = {self.name!r}: refuses a conversation of {roles} ({error}); leave such rows out, or use "
                "another template"
            ) from None

    def _fail(self, why: str, found: str, whole: str) -> NoReturn:
        same = next((at for at, (a, b) in enumerate(zip(found, whole, strict=False)) if a != b), len(whole))
        raise TemplateError(
            f"template = {self.name!r}: cannot be cut into prompts and answers: {why} (they part after "
            f"{found[max(0, same - 20) : same]!r}: {found[same : same + 20]!r}, {whole[same : same + 20]!r}); "
            "use another template"
        )


def _trained(span: list[Piece]) -> list[Piece]:
    """Returns the pieces of an answer as trained ones, but for what follows the token that ends its turn."""
    last = max((place for place, piece in enumerate(span) if piece.kind == "control"), default=len(span) - 1)
    return [piece._replace(trained=place <= last) for place, piece in enumerate(span)]


@functools.lru_cache(maxsize=4)
def _patterns(controls: tuple[ControlToken, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Returns patterns of all control tokens: alone, and with the white space that some swallow around them."""
    ordered = sorted(controls, key=lambda token: -len(token.text))  # the longest that fits is meant
    alone = [re.escape(token.text) for token in ordered]
    around = [
        (r"\s*" if token.strips_left else "") + re.escape(token.text) + (r"\s*" if token.strips_right else "")
        for token in ordered
    ]
    never = r"(?!)"
    return re.compile("|".join(alone) or never), re.compile("|".join(around) or never)


@functools.lru_cache(maxsize=4)
def _compile(source: str) -> Any:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks answers in some templates; here it is transparent, spans are found by rendering."""

        tags = {"generation"}  # noqa: RUF012 jinja's own way

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    def strftime_now(form: str) -> str:
        return datetime.datetime.now().strftime(form)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        # Jinja's own escapes HTML.
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment.from_string(source)
