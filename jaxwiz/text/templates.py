"""Instruction templates: an instruction and its answer as pieces of text and control tokens, with the spans that train.

A template gives pieces, not a string, for two reasons. Control tokens stay apart from text, so that a user's text can
never forge them. And prompt and answer are encoded piece by piece, so that the border of the loss mask is exact: no
token spans both, which masking by the length of the prompt alone doesn't ensure.

Training and generation share `encode_conversations`, so the model sees at generation what it saw in training.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from jaxwiz.files import UserError
from jaxwiz.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a conversation that is encoded on its own.

    Attributes:
      text: the text, or a control token's exact string.
      control: whether `text` names a control token.
      trained: whether its tokens bear loss.
    """

    text: str
    control: bool = False
    trained: bool = False


class Template(Protocol):
    """How an instruction is put to the model, and where its answer stands."""

    @property
    def name(self) -> str:
        """Its key in TEMPLATES."""

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts at which a generated answer ends, for models that go on with a next turn instead of EOS."""

    def prompt(self, instruction: str, input: str = "") -> tuple[Piece, ...]:
        """Returns the pieces before the answer; `input` is further context, empty for none."""

    def target(self, output: str) -> tuple[Piece, ...]:
        """Returns the pieces of the answer, all trained; the tokenizer's EOS is appended when they are encoded."""


@dataclasses.dataclass(frozen=True)
class HeaderTemplate:
    """Alpaca's layout, in which WizardLM and WizardCoder are trained too: a header, then sections marked by ###.

    The answer follows the last colon directly, with neither space nor line break.
    """

    name: str
    stop_strings: tuple[str, ...] = ("\n### Instruction:", "\n### Response:")

    def prompt(self, instruction: str, input: str = "") -> tuple[Piece, ...]:
        """Returns the header with the instruction, and the input where there is one; see `Template.prompt`."""
        if input:
            header = (
                "Below is an instruction that describes a task, paired with an input that provides further context."
            )
            context = f"### Input:\n{input}\n\n"
        else:
            header = "Below is an instruction that describes a task."
            context = ""
        return (
            Piece(
                f"{header} Write a response that appropriately completes the request.\n\n"
                f"### Instruction:\n{instruction}\n\n{context}### Response:"
            ),
        )

    def target(self, output: str) -> tuple[Piece, ...]:
        """Returns the answer as it is; see `Template.target`."""
        return (Piece(output, trained=True),)


@dataclasses.dataclass(frozen=True)
class ChatMLTemplate:
    """Turns between <|im_start|> and <|im_end|>, as SmolLM2-Instruct and many others are trained; no system turn."""

    name: str = "chatml"
    stop_strings: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")

    def prompt(self, instruction: str, input: str = "") -> tuple[Piece, ...]:
        """Returns the user's turn and the opening of the assistant's; see `Template.prompt`."""
        message = f"{instruction}\n\n{input}" if input else instruction
        return (
            Piece("<|im_start|>", control=True),
            Piece(f"user\n{message}"),
            Piece("<|im_end|>", control=True),
            Piece("\n"),
            Piece("<|im_start|>", control=True),
            Piece("assistant\n"),
        )

    def target(self, output: str) -> tuple[Piece, ...]:
        """Returns the answer and the token that ends its turn; see `Template.target`."""
        return (Piece(output, trained=True), Piece("<|im_end|>", control=True, trained=True))


TEMPLATES: dict[str, Template] = {
    template.name: template for template in (HeaderTemplate("wizardcoder"), HeaderTemplate("alpaca"), ChatMLTemplate())
}


def get_template(name: str) -> Template:
    """Returns the template of that name.

    Raises:
      UserError: there is none.
    """
    if name not in TEMPLATES:
        raise UserError(f"template = {name!r}: no such template; known: {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def encode_example(
    tokenizer: Tokenizer, template: Template, instruction: str, input: str, output: str
) -> tuple[list[int], list[bool]]:
    """Returns the ids of prompt, answer and EOS, and for each whether it is trained: the answer's and EOS are."""
    return encode_conversations(tokenizer, [example_pieces(template, instruction, input, output)], append_eos=True)[0]


def example_pieces(template: Template, instruction: str, input: str, output: str) -> tuple[Piece, ...]:
    """Returns the pieces of an instruction with its answer."""
    return template.prompt(instruction, input) + template.target(output)


def encode_conversations(
    tokenizer: Tokenizer, conversations: Sequence[Sequence[Piece]], append_eos: bool = False
) -> list[tuple[list[int], list[bool]]]:
    """Returns ids and trained flags of each conversation, encoded together, which is several times as fast.

    BOS comes first where the tokenizer's settings say so, and never twice. EOS, where asked for, comes last, is always
    trained, and never twice.

    Args:
      tokenizer: the tokenizer.
      conversations: the pieces of each, in order.
      append_eos: whether each ends in EOS: true for examples, false for prompts.

    Raises:
      TokenizerError: the tokenizer lacks a control token of the template.
    """
    openings, followings = [], []
    for pieces in conversations:
        texts = [piece.text for piece in pieces if not piece.control]
        openings += texts[:1]
        followings += texts[1:]
    opened = iter(tokenizer.encode_batch(openings))
    followed = iter(tokenizer.encode_batch(followings, continues=True))
    control_ids = {
        piece.text: tokenizer.special_id(piece.text) for pieces in conversations for piece in pieces if piece.control
    }
    encoded = []
    for pieces in conversations:
        tokens: list[int] = []
        trained: list[bool] = []
        text_began = False
        for piece in pieces:
            if piece.control:
                ids = [control_ids[piece.text]]
            else:
                ids = next(followed if text_began else opened)
                text_began = True
            tokens += ids
            trained += [piece.trained] * len(ids)
        if tokenizer.adds_bos and tokenizer.bos_id is not None and tokens[:1] != [tokenizer.bos_id]:
            tokens.insert(0, tokenizer.bos_id)
            trained.insert(0, False)
        if append_eos and not (trained and trained[-1] and tokens[-1] == tokenizer.eos_id):
            tokens.append(tokenizer.eos_id)
            trained.append(True)
        encoded.append((tokens, trained))
    return encoded
