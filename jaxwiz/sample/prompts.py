"""From an instruction to the ids that a model goes on from, and what ends its answer.

The template "none" stands for base models: the text itself is the prompt. Strings at which a template's answers end are
control tokens in some vocabularies and plain text in others; the former end a row on the device, the latter are looked
for in the decoded text.
"""

from collections.abc import Sequence

from jaxwiz.text.templates import Piece, encode_conversations, get_template
from jaxwiz.text.tokenizer import Tokenizer, TokenizerError

NO_TEMPLATE = "none"


def prompt_pieces(template: str, instruction: str) -> tuple[Piece, ...]:
    """Returns the pieces that a model answers; raises UserError if there is no such template."""
    if template == NO_TEMPLATE:
        return (Piece(instruction),)
    return get_template(template).prompt(instruction)


def prompt_text(template: str, instruction: str) -> str:
    """Returns the whole prompt as text, control tokens by their strings."""
    return "".join(piece.text for piece in prompt_pieces(template, instruction))


def encode_prompts(tokenizer: Tokenizer, template: str, instructions: Sequence[str]) -> list[list[int]]:
    """Returns the ids of each instruction's prompt, BOS included where the tokenizer adds one.

    Raises:
      UserError: no such template, or the tokenizer lacks a control token of it.
    """
    encoded = encode_conversations(tokenizer, [prompt_pieces(template, instruction) for instruction in instructions])
    return [tokens for tokens, _ in encoded]


def answer_ends(tokenizer: Tokenizer, template: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Returns what ends an answer: token ids, the tokenizer's EOS first, and texts.

    A text that is a control token of this tokenizer is named by its id; it stays among the texts too, since a model may
    also spell it out in plain characters.
    """
    texts = () if template == NO_TEMPLATE else get_template(template).stop_strings
    ids = [tokenizer.eos_id]
    for text in texts:
        try:
            ids.append(tokenizer.special_id(text))
        except TokenizerError:
            continue  # no control token here: plain text
    return tuple(dict.fromkeys(ids)), texts
