"""Encoding: what is trained, and what becomes of examples that are longer than a row."""

from pathlib import Path

import numpy as np
import pytest

from jaxwiz.data.encode import ROWS_PER_BLOCK, EncodeError, Example, encode_rows
from jaxwiz.data.sources import Reject, Row, SourceError
from jaxwiz.text.chat_template import ChatTemplate
from jaxwiz.text.encoding import encode_one
from jaxwiz.text.messages import Message, question_and_answer
from jaxwiz.text.templates import TEMPLATES
from jaxwiz.text.tokenizer import load_tokenizer

TEMPLATE = TEMPLATES["wizardcoder"]


@pytest.fixture
def tokenizer(tiny_tokenizer_folder):
    return load_tokenizer(tiny_tokenizer_folder)


def row(instruction: str, context: str, output: str, number: int = 1) -> Row:
    return Row(Path("rows.json"), number, question_and_answer(instruction, context, output))


def test_examples_of_many_blocks_come_in_order_with_eos_trained(tokenizer):
    rows = [row(f"Print {n}.", "", f"print({n})", n) for n in range(ROWS_PER_BLOCK + 3)]
    examples = list(encode_rows(rows, tokenizer, TEMPLATE, 128, "error"))
    assert [example.row for example in examples] == rows
    for example in examples[:: ROWS_PER_BLOCK // 2]:
        tokens, trained = encode_one(tokenizer, TEMPLATE.conversation(example.row.messages))
        assert example.tokens.tolist() == tokens
        assert example.trained.tolist() == trained
        assert (tokens[-1], trained[-1]) == (tokenizer.eos_id, True)


def test_an_example_may_fill_a_row_exactly(tokenizer):
    length = len(encode_one(tokenizer, TEMPLATE.conversation(question_and_answer("Say hi.", "", "hi")))[0])
    [example] = encode_rows([row("Say hi.", "", "hi")], tokenizer, TEMPLATE, length, "error")
    assert len(example.tokens) == length


def test_over_long_error_names_row_and_remedy(tokenizer):
    with pytest.raises(EncodeError, match=r"rows\.json:9: .*sequence_length"):
        list(encode_rows([row("Say hi.", "", "hi" * 500, 9)], tokenizer, TEMPLATE, 128, "error"))


def test_over_long_drop_reports_and_goes_on(tokenizer):
    rows = [row("Say hi.", "", "hi" * 500, 1), row("Say hi.", "", "hi", 2)]
    dropped, example = encode_rows(rows, tokenizer, TEMPLATE, 128, "drop")
    assert isinstance(dropped, Reject)
    assert (dropped.number, dropped.reason, dropped.kept) == (1, "over-long", False)
    assert isinstance(example, Example)
    assert example.row.number == 2


@pytest.mark.parametrize(
    ("instruction", "context"),
    [("Say hi.", "0123456789" * 50), ("Repeat this. " * 50, ""), ("Repeat this. " * 50, "0123456789")],
)
def test_a_cut_prompt_fills_the_row_and_keeps_template_and_answer_whole(instruction, context, tokenizer):
    long = row(instruction, context, "print('hi')")
    cut, example = encode_rows([long], tokenizer, TEMPLATE, 160, "truncate_prompt")
    assert isinstance(cut, Reject)
    assert isinstance(example, Example)
    assert (cut.reason, cut.kept) == ("prompt cut", True)
    assert 158 <= len(example.tokens) <= 160
    text = tokenizer.decode(example.tokens)
    begin = text.index("### Instruction:\n") + len("### Instruction:\n")
    assert text.endswith("\n\n### Response:print('hi')")
    # The input goes before the instruction, and each from its end.
    if len(instruction) < 100:
        assert text[begin:].startswith(f"{instruction}\n\n### Input:\n{context[:10]}")
    else:
        assert text[begin:].startswith(instruction[:100])
        assert "### Input" not in text
    answer = tokenizer.encode("print('hi')", continues=True)
    assert example.tokens[example.trained].tolist() == [*answer, tokenizer.eos_id]


def test_an_answer_is_never_cut(tokenizer):
    [dropped] = encode_rows([row("Say hi.", "", "hi" * 500)], tokenizer, TEMPLATE, 128, "truncate_prompt")
    assert isinstance(dropped, Reject)
    assert (dropped.reason, dropped.kept) == ("over-long", False)


CHAT = (
    Message("system", "Be brief."),
    *question_and_answer("Say hi. " * 30, "", "hi"),
    *question_and_answer("And bye?", "", "  bye\n"),
)


def chat_row(number: int = 1) -> Row:
    return Row(Path("chats.jsonl"), number, CHAT)


def test_every_answer_of_a_conversation_is_trained(tokenizer):
    [example] = encode_rows([chat_row()], tokenizer, TEMPLATES["chatml"], 1024, "error")
    assert isinstance(example, Example)
    end = tokenizer.special_id("<|im_end|>")
    answers = [tokenizer.encode(text, continues=True) for text in ("hi", "  bye\n")]
    assert example.tokens[example.trained].tolist() == [*answers[0], end, *answers[1], end]
    assert np.flatnonzero(np.diff(example.trained)).size == 3  # two spans, of which the second goes to the end


def test_of_a_conversation_only_the_first_prompt_is_cut(tokenizer):
    cut, example = encode_rows([chat_row()], tokenizer, TEMPLATES["chatml"], 130, "truncate_prompt")
    assert isinstance(cut, Reject)
    assert isinstance(example, Example)
    assert example.row == chat_row()
    assert 125 <= len(example.tokens) <= 130
    text = tokenizer.decode(example.tokens)
    assert "Be brief." in text
    assert "And bye?" in text
    assert 1 <= text.count("Say hi. ") < 30


def test_a_conversation_that_the_template_refuses_is_rejected_with_its_reason(tokenizer):
    source = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    template = ChatTemplate("strict", source, tokenizer.controls, tokenizer.roles)
    rows = [row("Say hi.", "", "hi", 1), chat_row(2), row("Say hi.", "", "hi", 3)]
    first, refused, third = encode_rows(rows, tokenizer, template, 1024, "error")
    assert isinstance(refused, Reject)
    assert (refused.number, refused.reason, refused.kept) == (2, "refused by template", False)
    assert "no system turn" in refused.detail
    assert isinstance(first, Example)
    assert isinstance(third, Example)
    assert first.tokens.tolist() == third.tokens.tolist()


def test_an_unreadable_source_is_an_error_of_the_encoding(tokenizer):
    def rows():
        yield from (row(f"Print {n}.", "", f"print({n})", n) for n in range(ROWS_PER_BLOCK))
        raise SourceError("the file breaks off")

    with pytest.raises(SourceError, match="breaks off"):
        list(encode_rows(rows(), tokenizer, TEMPLATE, 128, "error"))
