"""A conversation as everybody hands it around: messages with roles, before any template has laid them out.

An instruction with its answer is a conversation of two messages. Alpaca's "input" stays apart from the instruction that
it belongs to, because some templates give it a section of its own.
"""

import dataclasses
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
      role: "system", "user" or "assistant".
      content: its text.
      input: further context of a user's instruction, or empty.
    """

    role: Role
    content: str
    input: str = ""

    @property
    def text(self) -> str:
        """The whole text: the content, and after a blank line the input where there is one."""
        return f"{self.content}\n\n{self.input}" if self.input else self.content


def question_and_answer(instruction: str, input: str, output: str) -> tuple[Message, ...]:
    """Returns the conversation of an instruction, its further context or "", and its answer."""
    return (Message("user", instruction, input), Message("assistant", output))
