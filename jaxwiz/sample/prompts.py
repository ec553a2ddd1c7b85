"""From a conversation to the ids that a model goes on from, and what ends its answer.

The template "none" stands for base models: the text itself is the prompt. Strings at which a template's answers end are
control tokens in some vocabularies and plain text in others; the former end a row on the device, the latter are looked
for in the decoded text.
"""

from collections.abc import Sequence

from jaxwiz.text.encoding import encode_conversations
from jaxwiz.text.messages import Message
from jaxwiz.text.pieces import BEGIN, Piece, text_of
from jaxwiz.text.templates import load_template
from jaxwiz.text.tokenizer import Tokenizer, TokenizerError

NO_TEMPLATE = "none"


class Prompter:
    """Puts conversations to a model, the same way as training did.

    Attributes:
      end_ids: token ids that end an answer, the tokenizer's EOS first.
      end_texts: texts that end an answer. One that is a control token is among the ids too, but a model may also spell
        it out in plain characters.
    """

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        """Loads a template.

        Args:
          tokenizer: the model's.
          template: a built-in template's name, "tokenizer", the path of a .jinja file, or "none".

        Raises:
          UserError: no such template, or the tokenizer lacks a control token of it.
        """
        self._tokenizer = tokenizer
        self._template = None if template == NO_TEMPLATE else load_template(template, tokenizer)
        self.end_texts = self._template.stop_strings if self._template else ()
        ids = [tokenizer.eos_id]
        for text in self.end_texts:
            try:
                ids.append(tokenizer.special_id(text))
            except TokenizerError:
                continue  # no control token here: plain text
        self.end_ids = tuple(dict.fromkeys(ids))

    def encode(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Returns the ids that each conversation's next answer follows, BOS included where there is to be one."""
        encoded = encode_conversations(self._tokenizer, [self._pieces(messages) for messages in conversations])
        return [tokens.tolist() for tokens, _ in encoded]

    def encode_instructions(self, instructions: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each instruction's prompt, a conversation of one message."""
        return self.encode([[Message("user", instruction)] for instruction in instructions])

    def text(self, instruction: str) -> str:
        """Returns the whole prompt of an instruction as text, control tokens by their strings."""
        return self.conversation_text([Message("user", instruction)])

    def conversation_text(self, messages: Sequence[Message]) -> str:
        """Returns the whole prompt of a conversation as text, likewise."""
        return text_of(self._pieces(messages))

    def _pieces(self, messages: Sequence[Message]) -> list[Piece]:
        if self._template is not None:
            return self._template.prompt(messages)
        return [BEGIN, *(Piece(message.text) for message in messages)]
