"""A conversation in the terminal: turns are typed, answers appear as they are drawn.

Reads lines from stdin, so it works in a pipe, too; a turn of several lines stands between lines of three quotes. An
answer that is interrupted stays in the conversation as far as it got. With the template "none" there is no
conversation: the model goes on from each text by itself.
"""

import sys
from collections.abc import Callable, Iterator
from typing import IO

from jaxwiz.console import say
from jaxwiz.sample.answer import cache_dtype
from jaxwiz.sample.engine import Engine
from jaxwiz.sample.load import load_engine
from jaxwiz.sample.prompts import NO_TEMPLATE, Prompter
from jaxwiz.sample.requests import Request, RequestError
from jaxwiz.serve.config import ChatConfig
from jaxwiz.text.chat_template import TemplateError
from jaxwiz.text.messages import Message

QUOTES = '"""'
HELP = """/new     begin another conversation
/help    this list
/quit    leave, as does the end of input
A turn of several lines stands between lines of \"\"\". Ctrl-C ends an answer."""


def chat(config: ChatConfig, typed: IO[str], out: IO[str]) -> None:
    """Returns when there is no more input.

    Args:
      config: see there.
      typed: turns and commands, by lines.
      out: answers go there, and nothing else.

    Raises:
      UserError: the checkpoint, the template or the adapters are unusable.
    """
    engine = load_engine(
        config.checkpoint,
        config.template,
        slots=1,
        weights_dtype=config.dtype,
        cache_dtype=cache_dtype(config.dtype, config.cache_dtype),
        adapter=config.adapter,
    )
    conversation = Conversation(engine, config)
    say(f"chat: {config.checkpoint}; /help lists the commands")
    for turn in turns(typed, lambda: _prompt(typed)):
        if turn == "/quit":
            return
        if turn == "/new":
            conversation.begin()
        elif turn == "/help":
            say(HELP)
        elif turn.startswith("/") and "\n" not in turn and " " not in turn:
            say(f"chat: there is no command {turn}; /help lists them")
        else:
            _answer(conversation, turn, out)


class Conversation:
    """The turns so far, and the engine that answers the next one.

    Attributes:
      messages: all turns, the system's first where there is one.
    """

    def __init__(self, engine: Engine, config: ChatConfig) -> None:
        self._engine, self._config = engine, config
        self._prompter = Prompter(engine.tokenizer, config.template)
        self._answers = 0
        self.begin()

    def begin(self) -> None:
        """Forgets all turns."""
        self.messages = [Message("system", self._config.system)] if self._config.system else []

    def answer(self, turn: str) -> Iterator[str]:
        """Yields the answer in pieces; both turns are remembered as far as it was read.

        Raises:
          RequestError: the conversation is longer than the model's context; the turn is not remembered.
          TemplateError: the template refuses the conversation; likewise.
        """
        messages = [*self.messages, Message("user", turn)]
        (prompt,) = self._prompter.encode([messages])
        sampling = self._config.sampling
        room = self._engine.config.context_length - len(prompt)
        number = self._engine.submit(
            Request(
                prompt,
                max(1, min(sampling.max_new_tokens, room)),
                **sampling.request_fields(),
                seed=(sampling.seed + self._answers) % 2**64,
                stop=(*self._prompter.end_texts, *sampling.stop),
            )
        )
        self._answers += 1
        texts = []
        try:
            while not self._engine.idle:
                for event in self._engine.step():
                    texts.append(event.text)
                    yield event.text
                    if event.finish_reason == "length":
                        say("chat: cut at the most tokens of an answer (sampling.max_new_tokens, or the context)")
        finally:
            self._engine.cancel(number)
            if self._config.template != NO_TEMPLATE:
                self.messages = [*messages, Message("assistant", "".join(texts))]


def turns(typed: IO[str], on_wait: Callable[[], None] = lambda: None) -> Iterator[str]:
    """Yields each turn: a line that is not blank, or the lines between two of three quotes.

    Args:
      typed: the lines.
      on_wait: called before a turn is waited for.
    """
    on_wait()
    lines = iter(typed.readline, "")
    for line in lines:
        text = line.rstrip("\n")
        if text.strip() == QUOTES:
            block = []
            for line in lines:
                if line.strip() == QUOTES:
                    break
                block.append(line)
            text = "".join(block)
        if text.strip():
            yield text
        on_wait()


def _answer(conversation: Conversation, turn: str, out: IO[str]) -> None:
    try:
        for piece in conversation.answer(turn):
            print(piece, end="", file=out, flush=True)
    except KeyboardInterrupt:
        pass
    except (RequestError, TemplateError) as error:
        say(f"chat: {error}; /new begins another conversation")
        return
    print(file=out, flush=True)


def _prompt(typed: IO[str]) -> None:
    if typed.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
