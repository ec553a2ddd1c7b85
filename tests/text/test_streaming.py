"""Streamed text is the decoded text, whatever the ids: whole characters, cut before stop strings, at a steady cost."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from jaxwiz.text.streaming import StreamingText
from jaxwiz.text.tokenizer import HuggingFaceTokenizer, Tokenizer, load_tokenizer
from jaxwiz.text.tokenizer_files import TokenizerFiles
from tests.text.small_tokenizers import HARD_TEXTS

KINDS = ("byte-level", "llama 3", "sentencepiece", "byte fallback")


@pytest.fixture(scope="session")
def byte_fallback() -> Tokenizer:
    """A tokenizer.json in the manner of Llama 2's: characters and, for those it lacks, bytes, decoded run by run."""
    from tokenizers import Tokenizer as Bare
    from tokenizers import decoders, models, normalizers

    letters = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *map(chr, range(33, 127)), "▁"]
    bare = Bare(models.BPE({text: index for index, text in enumerate(letters)}, [], byte_fallback=True))
    bare.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bare.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bare.add_special_tokens(["<s>", "</s>"])
    contents = {"tokenizer.json": bare.to_str().encode(), "tokenizer_config.json": b'{"eos_token": "</s>"}'}
    return HuggingFaceTokenizer(TokenizerFiles(Path("made here"), contents))


@pytest.fixture(params=KINDS)
def tokenizer(
    request: pytest.FixtureRequest,
    tiny_tokenizer_folder: Path,
    llama_3_folder: Path,
    sentencepiece_folder: Path,
    byte_fallback: Tokenizer,
) -> Tokenizer:
    if request.param == "byte fallback":
        return byte_fallback
    folders = dict(zip(KINDS, (tiny_tokenizer_folder, llama_3_folder, sentencepiece_folder), strict=False))
    return load_tokenizer(folders[request.param])


def streamed(tokenizer: Tokenizer, ids: Sequence[int], stop: Sequence[str] = ()) -> list[str]:
    """What each `add` returns, and `finish`."""
    text = StreamingText(tokenizer, stop)
    return [*map(text.add, ids), text.finish()]


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the stop string that is complete first, found character by character."""
    for end in range(len(text) + 1):
        complete = [one for one in stop if text[:end].endswith(one)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@pytest.mark.parametrize("text", HARD_TEXTS, ids=ascii)
def test_pieces_make_up_the_text_and_none_has_half_a_character(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text * 3, continues=True)
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids, continues=True) == text * 3
    assert not any("\ufffd" in piece for piece in pieces)


def test_text_comes_as_soon_as_it_is_whole(byte_fallback: Tokenizer):
    ids = byte_fallback.encode("a你😀 b", continues=True)
    assert streamed(byte_fallback, ids) == ["a", "", "", "你", "", "", "", "😀", " ", "b", ""]


def test_any_ids_give_what_decoding_them_all_gives(tokenizer: Tokenizer):
    """Most of these are broken bytes; control tokens and ids beyond the vocabulary are among them."""
    character = tokenizer.encode("漢", continues=True)
    loses_runs = "漢" not in tokenizer.decode(character[-1:] + character, continues=True)
    for seed in range(300):
        source = random.Random(seed)
        high = source.choice([270, tokenizer.vocab_size + 3])
        ids = [source.randrange(high) for _ in range(source.randrange(60))]
        expected = tokenizer.decode(ids, continues=True)
        found = "".join(streamed(tokenizer, ids))
        if loses_runs:
            rest = iter(found)  # a broken run: found has more of it than what is decoded at once, and all around it
            assert all(char in rest for char in expected if char != "\ufffd")
            continue
        missing = len(expected) - len(found)
        assert missing <= 3
        assert found + "\ufffd" * missing == expected


def test_stop_strings_are_cut_wherever_tokens_end(tokenizer: Tokenizer):
    text = "ab abc aab\n\n### 漢字 abcab 😀😀 ba"
    ids = tokenizer.encode(text, continues=True)
    random_ = random.Random(0)
    stops = [("abcab",), ("abcd", "bc"), ("aab\n\n#", "b\n"), ("字 a", "😀b"), ("😀 ", "never"), ("a", "ab"), ("ba",)]
    for _ in range(150):
        places = [random_.randrange(len(text)) for _ in range(random_.randrange(1, 4))]
        stops.append(tuple(text[place : place + random_.randrange(1, 7)] for place in places))
    for stop in stops:
        pieces = streamed(tokenizer, ids, stop)
        assert "".join(pieces) == cut(text, stop), stop
        assert not any("\ufffd" in piece for piece in pieces)


def test_nothing_that_may_begin_a_stop_string_is_emitted_before_it_is_known(byte_fallback: Tokenizer):
    text = StreamingText(byte_fallback, ["aab", "b!"])
    ids = byte_fallback.encode("xaaab", continues=True)
    assert [text.add(token) for token in ids] == ["x", "", "", "a", ""]
    assert text.stopped
    assert text.add(ids[0]) == text.finish() == ""
    cut_short = StreamingText(byte_fallback, ["aab"])
    assert [cut_short.add(token) for token in ids[:3]] == ["x", "", ""]
    assert not cut_short.stopped
    assert cut_short.finish() == "aa"


def test_a_half_character_at_the_end_is_left_out(tokenizer: Tokenizer):
    ids = tokenizer.encode("x 你😀", continues=True)
    for dropped in (1, 2, 3):
        assert "".join(streamed(tokenizer, ids[:-dropped])) == "x 你"


@pytest.mark.parametrize("kind", ["text", "broken bytes", "control tokens"])
def test_the_cost_of_a_token_does_not_grow(tokenizer: Tokenizer, kind: str, monkeypatch: pytest.MonkeyPatch):
    source = {
        "text": tokenizer.encode("def 漢字😀(x):\n    return x\n" * 60, continues=True)[:1000],
        "broken bytes": [tokenizer.encode("漢", continues=True)[-1]] * 1000,
        "control tokens": [tokenizer.eos_id] * 1000,
    }
    decoded: list[int] = []
    decode = type(tokenizer).decode

    def counted(self: Tokenizer, ids: Sequence[int], continues: bool = False) -> str:
        decoded.append(len(ids))
        return decode(self, ids, continues)

    monkeypatch.setattr(type(tokenizer), "decode", counted)
    streamed(tokenizer, source[kind], ["never", "def 漢!"])
    assert sum(decoded) < 40 * len(source[kind])
