"""The chat: what is typed, what appears, what is remembered."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.cli import main
from jaxwiz.sample.prompts import Prompter
from jaxwiz.sample.requests import Request
from jaxwiz.serve.chat import Conversation, chat, turns
from jaxwiz.serve.config import ChatConfig, SamplingConfig
from jaxwiz.text.messages import Message
from jaxwiz.text.tokenizer import Tokenizer

GREEDY = SamplingConfig(max_new_tokens=12)


def config(checkpoint: Path, **changes: Any) -> ChatConfig:
    return ChatConfig(checkpoint=checkpoint, **{"template": "chatml", "sampling": GREEDY, **changes})


def test_turns_are_lines_or_stand_between_quotes():
    typed = io.StringIO('one\n\n  \n"""\ndef f():\n\n    return 1\n"""\n  two\n"""\nno end\n')
    assert list(turns(typed)) == ["one", "def f():\n\n    return 1\n", "  two", "no end\n"]


def test_each_answer_follows_all_turns(
    checkpoint: Path, make_engine: Callable[..., Any], tokenizer: Tokenizer, capsys: pytest.CaptureFixture
):
    engine = make_engine(end_ids=(2,))
    prompter = Prompter(tokenizer, "chatml")
    messages = [Message("system", "Be brief.")]
    expected = []
    for turn in ("Add two numbers.", "Now three."):
        messages.append(Message("user", turn))
        (prompt,) = prompter.encode([messages])
        (answer,) = engine.generate([Request(prompt, 12, stop=prompter.end_texts)])
        messages.append(Message("assistant", answer.text))
        expected.append(answer.text)
    out = io.StringIO()
    chat(config(checkpoint, system="Be brief."), io.StringIO("Add two numbers.\nNow three.\n/quit\nnever read\n"), out)
    assert out.getvalue() == "".join(f"{text}\n" for text in expected)
    assert "cut at the most tokens" in capsys.readouterr().err


def test_commands(checkpoint: Path, capsys: pytest.CaptureFixture):
    alone, out = io.StringIO(), io.StringIO()
    chat(config(checkpoint), io.StringIO("Sort a list.\n"), alone)
    chat(config(checkpoint), io.StringIO("Sort a list.\nx\n/new\nSort a list.\n/help\n/nothing\n"), out)
    # The same turn in a new conversation has the same greedy answer.
    assert out.getvalue().startswith(alone.getvalue()) and out.getvalue().endswith(alone.getvalue())
    assert len(out.getvalue()) > 2 * len(alone.getvalue())
    said = capsys.readouterr().err
    assert "/new     begin another conversation" in said and "there is no command /nothing" in said


def test_an_answer_that_is_left_is_remembered_so_far(checkpoint: Path, make_engine: Callable[..., Any]):
    engine = make_engine()
    conversation = Conversation(engine, config(checkpoint, sampling=SamplingConfig(max_new_tokens=100)))
    pieces = conversation.answer("Count.")
    read = next(pieces)
    pieces.close()
    assert [message.content for message in conversation.messages] == ["Count.", read]
    assert engine.idle


def test_without_a_template_each_text_is_gone_on_from(checkpoint: Path, make_engine: Callable[..., Any]):
    engine = make_engine()
    conversation = Conversation(engine, config(checkpoint, template="none"))
    one = "".join(conversation.answer("def add(first, second):\n"))
    assert conversation.messages == []
    assert "".join(conversation.answer("def add(first, second):\n")) == one


def test_a_turn_beyond_the_context_is_said_and_forgotten(checkpoint: Path, capsys: pytest.CaptureFixture):
    out = io.StringIO()
    chat(config(checkpoint), io.StringIO("é" * 600 + "\nSort.\n"), out)
    assert out.getvalue().count("\n") >= 1
    assert "the model has 512" in capsys.readouterr().err


def test_the_command(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("sys.stdin", io.StringIO("/quit\n"))
    assert main(["chat", str(checkpoint), "template=chatml"]) == 0
    assert main(["chat", str(checkpoint), "template=no-such"]) == 2
    assert main(["chat", str(checkpoint), "sampling.temperature=-1"]) == 2
    assert "sampling.temperature" in capsys.readouterr().err
