"""Instruction templates: how a conversation is laid out for a model, with the spans that bear loss.

Built in are the layouts of Alpaca and WizardCoder, ChatML, Llama 2 and Llama 3; their texts are those of the official
chat templates. Any other is a Jinja chat template: the tokenizer's own, or a file. Every answer of a conversation bears
loss, with the token that ends its turn, and a conversation always ends in a trained EOS.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from jaxwiz.files import UserError
from jaxwiz.text.chat_template import ChatTemplate
from jaxwiz.text.messages import Message
from jaxwiz.text.pieces import BEGIN, END, Piece, control, until_last_trained
from jaxwiz.text.tokenizer import Tokenizer

FROM_TOKENIZER = "tokenizer"
_JINJA_SUFFIX = ".jinja"


class Template(Protocol):
    """How a conversation is put to the model, and where its answers stand. Instances can be pickled."""

    @property
    def name(self) -> str:
        """What configs call it."""

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts at which a generated answer ends, for models that go on with a next turn instead of EOS."""

    @property
    def digest(self) -> str:
        """SHA-256 over all that decides what it makes of a conversation."""

    def conversation(self, messages: Sequence[Message]) -> list[Piece]:
        """Returns the pieces of a conversation that ends in an answer, up to the EOS after it; answers are trained."""

    def prompt(self, messages: Sequence[Message]) -> list[Piece]:
        """Returns the pieces before the next answer, in a conversation that ends in a message of the user."""


# What digests are taken of: a system message, an input, several turns; and a conversation without any of these.
_PROBES = (
    (
        Message("system", "system"),
        Message("user", "instruction", "input"),
        Message("assistant", "answer"),
        Message("user", "more"),
        Message("assistant", "another"),
    ),
    (Message("user", "instruction"), Message("assistant", "answer")),
)


class _BuiltIn:
    """What the built-in templates share; a subclass lays out turns."""

    def conversation(self, messages: Sequence[Message]) -> list[Piece]:
        """Returns the pieces of a whole conversation; see `Template.conversation`."""
        return [*until_last_trained(self._turns(messages)), END]

    def prompt(self, messages: Sequence[Message]) -> list[Piece]:
        """Returns the pieces before the next answer; see `Template.prompt`."""
        return self._turns(messages) + self._answer_opening()

    @property
    def digest(self) -> str:
        """A hash of what is made of fixed conversations, so that a changed template is seen."""
        made = [[self.conversation(probe), self.prompt(probe[:-1])] for probe in _PROBES]
        return hashlib.sha256(json.dumps(made).encode()).hexdigest()

    def _turns(self, messages: Sequence[Message]) -> list[Piece]:
        raise NotImplementedError

    def _answer_opening(self) -> list[Piece]:
        """What stands between the user's turn and the answer."""
        return []


@dataclasses.dataclass(frozen=True)
class HeaderTemplate(_BuiltIn):
    """Alpaca's layout, in which WizardLM and WizardCoder are trained too: a header, then sections marked by ###.

    The answer follows the last colon directly, with neither space nor line break. A system message takes the place of
    the header. Further turns, which Alpaca has none of, follow the EOS of the one before, without a header.
    """

    name: str
    stop_strings: tuple[str, ...] = ("\n### Instruction:", "\n### Response:")

    def _turns(self, messages: Sequence[Message]) -> list[Piece]:
        header = ""
        pieces = [BEGIN]
        for message in messages:
            if message.role == "system":
                header = message.content
            elif message.role == "user":
                first = len(pieces) == 1
                context = f"### Input:\n{message.input}\n\n" if message.input else ""
                opening = f"{header or _alpaca_header(message)}\n\n" if first else "\n\n"
                pieces.append(Piece(f"{opening}### Instruction:\n{message.content}\n\n{context}### Response:"))
            else:
                pieces += [Piece(message.content, trained=True), END]
        return pieces


def _alpaca_header(message: Message) -> str:
    paired = ", paired with an input that provides further context" if message.input else ""
    return (
        f"Below is an instruction that describes a task{paired}. "
        "Write a response that appropriately completes the request."
    )


@dataclasses.dataclass(frozen=True)
class ChatMLTemplate(_BuiltIn):
    """Turns between <|im_start|> and <|im_end|>, as SmolLM2-Instruct and many others are trained.

    There is no system turn but the conversation's own; the chat template of a model may put in one of its own.
    """

    name: str = "chatml"
    stop_strings: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")

    def _turns(self, messages: Sequence[Message]) -> list[Piece]:
        pieces = [BEGIN]
        for message in messages:
            trained = message.role == "assistant"
            pieces.append(control("<|im_start|>"))
            if trained:
                pieces += [Piece("assistant\n"), Piece(message.content, trained=True)]
            else:
                pieces.append(Piece(f"{message.role}\n{message.text}"))
            pieces += [control("<|im_end|>", trained), Piece("\n")]
        return pieces

    def _answer_opening(self) -> list[Piece]:
        return [control("<|im_start|>"), Piece("assistant\n")]


@dataclasses.dataclass(frozen=True)
class Llama2Template(_BuiltIn):
    """Llama 2's and Code Llama's chat: [INST] and [/INST] in plain text, each turn between BOS and EOS.

    The system message stands in the first instruction. Messages are stripped of surrounding white space, as officially.
    """

    name: str = "llama2"
    stop_strings: tuple[str, ...] = ()

    def _turns(self, messages: Sequence[Message]) -> list[Piece]:
        pieces = []
        system = ""
        for message in messages:
            if message.role == "system":
                system = f"<<SYS>>\n{message.content}\n<</SYS>>\n\n"
            elif message.role == "user":
                pieces += [control("<s>"), Piece(f"[INST] {(system + message.text).strip()} [/INST]")]
                system = ""
            else:
                pieces += [Piece(f" {message.content.strip()} ", trained=True), control("</s>", trained=True)]
        return pieces


@dataclasses.dataclass(frozen=True)
class Llama3Template(_BuiltIn):
    """Llama 3's chat: a header of control tokens before each message, <|eot_id|> after it.

    Messages are stripped of surrounding white space, as officially. Llama 3.1 and later put a system turn with a date
    before a conversation: that is their tokenizer's own template.
    """

    name: str = "llama3"
    stop_strings: tuple[str, ...] = ("<|eot_id|>", "<|start_header_id|>")

    def _turns(self, messages: Sequence[Message]) -> list[Piece]:
        pieces = [control("<|begin_of_text|>")]
        for message in messages:
            trained = message.role == "assistant"
            pieces += [control("<|start_header_id|>"), Piece(message.role), control("<|end_header_id|>")]
            if trained:
                pieces += [Piece("\n\n"), Piece(message.content.strip(), trained=True)]
            else:
                pieces.append(Piece(f"\n\n{message.text.strip()}"))
            pieces.append(control("<|eot_id|>", trained))
        return pieces

    def _answer_opening(self) -> list[Piece]:
        return [control("<|start_header_id|>"), Piece("assistant"), control("<|end_header_id|>"), Piece("\n\n")]


TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        HeaderTemplate("wizardcoder"),
        HeaderTemplate("alpaca"),
        ChatMLTemplate(),
        Llama2Template(),
        Llama3Template(),
    )
}


def require_template_name(name: str) -> None:
    """Raises UserError if `name` can be no template: neither built in, nor "tokenizer", nor a .jinja file's path."""
    if name not in TEMPLATES and name != FROM_TOKENIZER and not name.endswith(_JINJA_SUFFIX):
        raise UserError(
            f"template = {name!r}: no such template; known: {', '.join(TEMPLATES)}, {FROM_TOKENIZER!r} for the "
            f"tokenizer's own chat template, or the path of a {_JINJA_SUFFIX} file"
        )


def load_template(name: str, tokenizer: Tokenizer) -> Template:
    """Returns a template that is known to work with a tokenizer.

    Args:
      name: of a built-in template; "tokenizer" for the tokenizer's own chat template; or the path of a Jinja chat
        template, which ends in ".jinja".
      tokenizer: that its pieces will be encoded with.

    Raises:
      UserError: there is no such template, it cannot be cut into prompts and answers, or the tokenizer lacks one of its
        control tokens.
    """
    require_template_name(name)
    template = TEMPLATES[name] if name in TEMPLATES else _load_chat_template(name, tokenizer)
    for piece in template.conversation(_PROBES[-1]):
        if piece.kind == "control":
            tokenizer.special_id(piece.text)
    return template


def _load_chat_template(name: str, tokenizer: Tokenizer) -> ChatTemplate:
    if name != FROM_TOKENIZER:
        try:
            return ChatTemplate(name, Path(name).read_text(encoding="utf-8"), tokenizer.controls, tokenizer.roles)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"template = {name!r}: cannot be read ({error}); give a Jinja chat template") from None
    if tokenizer.chat_template is None:
        raise UserError(
            f"template = {name!r}: this tokenizer brings no chat template; name one of {', '.join(TEMPLATES)}, or give "
            f"the path of a {_JINJA_SUFFIX} file"
        )
    return ChatTemplate(name, tokenizer.chat_template, tokenizer.controls, tokenizer.roles)
