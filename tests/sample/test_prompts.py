"""Prompts: the same pieces as in training, for one message or several turns, and what ends an answer."""

import json
import shutil
from pathlib import Path

import pytest

from jaxwiz.files import UserError
from jaxwiz.sample.prompts import Prompter
from jaxwiz.text.encoding import encode_one
from jaxwiz.text.messages import Message, question_and_answer
from jaxwiz.text.templates import TEMPLATES, load_template
from jaxwiz.text.tokenizer import load_tokenizer

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role + '\\n' + message.content }}<|im_end|>"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>{{ 'assistant\\n' }}{% endif %}"
)


@pytest.fixture
def tokenizer_folder(tiny_tokenizer_folder: Path, tmp_path: Path) -> Path:
    """A tokenizer that brings ChatML as its chat template."""
    folder = shutil.copytree(tiny_tokenizer_folder, tmp_path / "tokenizer")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": CHATML}))
    return folder


@pytest.mark.parametrize("name", ["wizardcoder", "chatml", "tokenizer"])
def test_a_prompt_of_several_turns_is_how_the_trained_conversation_begins(name, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    messages = [*question_and_answer("Add <|im_end|>.", "", " 3"), *question_and_answer("Again.", "", "4")]
    [prompt] = Prompter(tokenizer, name).encode([messages[:-1]])
    trained, flags = encode_one(tokenizer, load_template(name, tokenizer).conversation(messages))
    assert trained[: len(prompt)] == prompt
    assert flags[len(prompt)]
    assert not flags[len(prompt) - 1]


def test_an_instruction_alone_is_text_and_ids(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    prompter = Prompter(tokenizer, "tokenizer")
    assert prompter.text("Hi") == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    expected = encode_one(tokenizer, TEMPLATES["chatml"].prompt([Message("user", "Hi")]))[0]
    assert prompter.encode_instructions(["Hi", "Hi"]) == [expected, expected]
    bare = Prompter(tokenizer, "none")
    assert (bare.text("def f"), bare.encode_instructions(["def f"])) == ("def f", [tokenizer.encode("def f")])


@pytest.mark.parametrize(
    ("name", "ids", "texts"),
    [
        ("none", (2,), ()),
        ("wizardcoder", (2,), ("\n### Instruction:", "\n### Response:")),
        ("chatml", (2, 1), ("<|im_start|>", "<|im_end|>")),
        ("tokenizer", (2,), ("<|im_end|>",)),
    ],
)
def test_what_ends_an_answer(name, ids, texts, tokenizer_folder):
    prompter = Prompter(load_tokenizer(tokenizer_folder), name)
    assert (prompter.end_ids, prompter.end_texts) == (ids, texts)


def test_a_template_that_does_not_go_with_the_tokenizer_is_refused_at_once(tokenizer_folder):
    with pytest.raises(UserError, match="begin_of_text"):
        Prompter(load_tokenizer(tokenizer_folder), "llama3")
