"""Texts cut at a common beginning encode as they do whole: against the same tokenizer, one text at a time."""

import copy
import json
import random
from pathlib import Path

import pytest
from encoding_cases import GOLDEN_TEXTS
from smollm2_cases import fetch_smollm2

from jaxwiz.convert.gguf_in import read_gguf
from jaxwiz.convert.names import ConversionError
from jaxwiz.text.heads import can_cut, encode_with_shared_heads
from jaxwiz.text.messages import Message
from jaxwiz.text.pieces import text_of
from jaxwiz.text.templates import load_template
from jaxwiz.text.tokenizer import HuggingFaceTokenizer, load_tokenizer

RECORD = json.loads((Path(__file__).parents[1] / "golden" / "encoding.json").read_text())
# What may stand right after a header, or a header may end in.
BORDERS = (
    "",
    " ",
    "\n",
    "\n\n\n",
    "\r\n",
    "\t",
    "'s",
    "...",
    ".",
    "é",
    "\u0301",
    "7",
    "中",
    "<|endoftext|>",
    "?!",
    "\xa0",
)


@pytest.fixture(params=["smollm2", "llama3"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> HuggingFaceTokenizer:
    if request.param == "llama3":
        for name, content in RECORD["llama3_files"].items():
            (tmp_path / name).write_text(json.dumps(content))
        found = load_tokenizer(tmp_path)
    else:
        try:
            found = load_tokenizer(read_gguf(fetch_smollm2(), tmp_path, "test").tokenizer)
        except ConversionError as error:
            pytest.skip(f"the default model can't be had here: {error}")
    assert isinstance(found, HuggingFaceTokenizer)
    return found


def spec_of(tokenizer: HuggingFaceTokenizer) -> dict:
    spec = json.loads(tokenizer._source.contents["tokenizer.json"])
    for token in spec["added_tokens"]:
        token["special"] = True
    return spec


def test_cut_texts_have_the_ids_of_whole_ones(tokenizer: HuggingFaceTokenizer) -> None:
    assert tokenizer._can_cut
    draw = random.Random(0)
    template = load_template("wizardcoder", tokenizer)
    contents = [*GOLDEN_TEXTS, *BORDERS[1:]]
    texts = [text_of(template.prompt([Message("user", text or "-", draw.choice(BORDERS))])) for text in contents]
    for _ in range(400):
        head = f"A header{draw.choice(BORDERS)} of {draw.choice(('two', 'three'))} words{draw.choice(BORDERS)}"
        texts += 3 * [f"{head}.\n\n{draw.choice(BORDERS)}{draw.choice(contents)}"]
        texts += [f"{head}{draw.choice(BORDERS)}.\n\n{draw.choice(BORDERS)}", "no header", draw.choice(contents)]
    calls: list[int] = []

    def encode(some):
        calls.append(len(some))
        return [tokenizer.encode(text) for text in some]

    whole = [tokenizer.encode(text) for text in texts]
    assert encode_with_shared_heads(texts, encode) == whole
    assert len(calls) == 2 and calls[0] > 10, "heads first, then the rest: or nothing was tested"
    assert tokenizer.encode_batch(texts) == whole
    assert tokenizer.encode_batch(texts, continues=True) == whole


def test_texts_with_nothing_in_common_stay_whole() -> None:
    texts = ["One.\n\ntext", "Another.\n\ntext", "a third", "4.\n\ntext", ""]
    seen = []
    assert encode_with_shared_heads(texts, lambda some: seen.append(list(some)) or [[1]] * len(some)) == [[1]] * 5
    assert seen == [texts]


def test_only_tokenizers_that_are_known_to_allow_it_are_cut(tokenizer: HuggingFaceTokenizer) -> None:
    sound = spec_of(tokenizer)
    assert can_cut(sound)

    def changed(**changes) -> dict:
        return {**copy.deepcopy(sound), **changes}

    token = {**sound["added_tokens"][0], "content": ".\n\n", "special": False}
    for spec in (
        changed(normalizer={"type": "NFKC"}),
        changed(added_tokens=[*sound["added_tokens"], token]),
        changed(model={**sound["model"], "dropout": 0.1}),
        changed(model={**sound["model"], "type": "Unigram"}),
        changed(pre_tokenizer=None),
        changed(pre_tokenizer={"type": "Metaspace"}),
        changed(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}),
        changed(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}),
        changed(pre_tokenizer={"type": "Split", "pattern": {"Regex": r"[a-z.]+"}, "behavior": "Isolated"}),
    ):
        assert not can_cut(spec)
