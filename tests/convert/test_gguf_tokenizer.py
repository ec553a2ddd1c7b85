"""Tokenizers rebuilt from a GGUF's vocabulary encode as the ones they were made from."""

import json
from pathlib import Path

import gguf
import pytest

from jaxwiz.convert.gguf_in import _open
from jaxwiz.convert.gguf_tokenizer import write_tokenizer
from jaxwiz.convert.names import ConversionError
from jaxwiz.text.tokenizer import Tokenizer, load_tokenizer

LLAMA_2 = Path(__file__).parents[2].parent / "shared" / "data" / "llama2-tokenizer.model"

TEXTS = (
    "",
    " ",
    "   ",
    "Hello, world!",
    "  leading and trailing  ",
    "def f(x):\n    if x > 10:\n\t\treturn x ** 2\n    return [i for i in range(10) if i % 3 == 0]\n",
    "a\tb\t\tc\n\td\r\n\n\n",
    "1234567890 3.14159 -42 1e-5 0xFF 2024-01-31",
    '#include <stdio.h>\nint main(void) { printf("%d\\n", 42); return 0; }',
    "naïve café e\u0301 ﬁ ½ ² Ⅷ",
    "你好,世界。日本語のテキスト 한국어 텍스트 𠜎𠜱",
    "Привет, мир! שלום مرحبا ١٢٣",
    "🙂🙃👩‍👩‍👧‍👦 🇫🇷 zero\u200bwidth no\u00a0break",
    "<s> </s> <unk> <0x0A> [INST] ▁▁ [PAD]",
    "\x00\x07\x1b[0m",
    "a" * 100 + " " * 50 + "\n" * 20,
)


def vocabulary_of(model: Path, changes: dict[str, object]) -> dict[str, object]:
    """Returns the metadata that llama.cpp's converter writes for a SentencePiece model."""
    from sentencepiece import sentencepiece_model_pb2

    pieces = sentencepiece_model_pb2.ModelProto.FromString(model.read_bytes()).pieces  # type: ignore[attr-defined]
    return {
        "llama.context_length": 4096,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [piece.piece for piece in pieces],
        "tokenizer.ggml.scores": [piece.score for piece in pieces],
        "tokenizer.ggml.token_type": [piece.type for piece in pieces],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
    } | changes


def through_gguf(metadata: dict[str, object], folder: Path) -> Tokenizer:
    """Writes a GGUF that holds a vocabulary only, and returns the tokenizer that is read from it."""
    path = folder / "vocabulary.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    fields = _open(path).fields.items()
    write_tokenizer({key: field.contents() for key, field in fields}, folder, "test.gguf")
    return load_tokenizer(folder)


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    """A SentencePiece model in Llama's manner, trained on the spot."""
    import sentencepiece

    lines = ["def add(first, second):", "    return first + second", "Write a Python function.", "### Response:"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 20),
        model_prefix=str(tmp_path / "small"),
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    return tmp_path / "small.model"


@pytest.mark.parametrize("which", ["small", "llama 2"])
def test_sentencepiece_encodes_as_the_original(request: pytest.FixtureRequest, tmp_path: Path, which: str) -> None:
    if which == "llama 2" and not LLAMA_2.exists():
        pytest.skip(f"needs {LLAMA_2}, which is not part of the project")
    model = LLAMA_2 if which == "llama 2" else request.getfixturevalue("small_model")
    folder = tmp_path / "rebuilt"
    folder.mkdir()
    ours, original = through_gguf(vocabulary_of(model, {}), folder), load_tokenizer(model)
    for text in TEXTS:
        for continues in (False, True):
            ids = original.encode(text, continues)
            assert ours.encode(text, continues) == ids, text
            assert ours.decode(ids, continues) == original.decode(ids, continues)
    for role in ("vocab_size", "bos_id", "eos_id", "pad_id", "adds_bos"):
        assert getattr(ours, role) == getattr(original, role), role
    assert ours.special_id("</s>") == 2
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert (settings["bos_token"], settings["eos_token"], settings["add_bos_token"]) == ("<s>", "</s>", True)


def test_added_pieces_padding_and_missing_types_of_old_files(tmp_path: Path, small_model: Path) -> None:
    metadata = vocabulary_of(small_model, {})
    tokens, scores, types = (list(metadata[f"tokenizer.ggml.{key}"]) for key in ("tokens", "scores", "token_type"))  # type: ignore[call-overload]
    types[1] = types[2] = 1  # <s> and </s> as plain pieces
    metadata |= {
        "tokenizer.ggml.tokens": [*tokens, "<| end |>", "[PAD]"],
        "tokenizer.ggml.scores": [*scores, -1000.0, -1000.0],
        "tokenizer.ggml.token_type": [*types, 4, 3],
        "tokenizer.ggml.padding_token_id": len(tokens) + 1,
        "tokenizer.ggml.add_space_prefix": False,
    }
    ours = through_gguf(metadata, tmp_path)
    assert ours.encode("a<| end |>")[-1] == len(tokens)
    assert len(tokens) + 1 not in ours.encode("[PAD]")  # a control piece is only text in a text
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, len(tokens) + 1)
    assert ours.encode("def") == ours.encode("def", continues=True)  # no space is put before a text
    assert "</s>" not in ours.decode([*ours.encode("def"), 2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.ggml.scores": [0.0]}, "tokenizer.ggml.scores has 1 entries for 320 tokens"),
        ({"tokenizer.ggml.token_type": [1] * 320}, "SentencePiece does not accept the vocabulary"),
        ({"tokenizer.ggml.model": "t5"}, "tokenizer.ggml.model = 't5': must be 'gpt2'"),
    ],
)
def test_an_unfit_vocabulary_is_one_clear_error(
    tmp_path: Path, small_model: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConversionError, match=message.replace("(", r"\(")):
        through_gguf(vocabulary_of(small_model, changes), tmp_path)


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("gpt-2", "x  42 y's\n", "x|Ġ|Ġ42|Ġy|'s|Ċ"),
        ("smollm", "x  42 y", "x|ĠĠ|4|2|Ġy"),
        ("llama-bpe", "I'LL pay 12345$!\n\n  x\t=1", "I|'LL|Ġpay|Ġ|123|45|$!ĊĊ|Ġ|Ġx|ĉ|=|1"),
        ("deepseek-coder", "ab 12c, d\n漢字x", "ab|Ġ|1|2|c|,|Ġd|Ċ|æ¼¢åŃĹ|x"),
    ],
)
def test_byte_level_rules_split_as_the_models_do(tmp_path: Path, rule: str, text: str, expected: str) -> None:
    from tokenizers import Tokenizer, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    metadata: dict[str, object] = {
        "llama.context_length": 64,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": rule,
        "tokenizer.ggml.tokens": [*letters, "<end>"],
        "tokenizer.ggml.token_type": [1] * 256 + [3],
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.eos_token_id": 256,
    }
    write_tokenizer(metadata, tmp_path, "test.gguf")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert "|".join(piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)) == expected


def test_llama_3_keeps_words_that_are_tokens_whatever_the_merges(tmp_path: Path) -> None:
    metadata: dict[str, object] = {
        "llama.context_length": 64,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["a", "b", "c", "ab", "bc", "abc", "<end>"],
        "tokenizer.ggml.merges": ["b c"],
        "tokenizer.ggml.token_type": [1] * 6 + [3],
        "tokenizer.ggml.eos_token_id": 6,
    }
    for rule, expected in (("llama-bpe", [5]), ("gpt-2", [0, 4])):
        folder = tmp_path / rule
        folder.mkdir()
        write_tokenizer(metadata | {"tokenizer.ggml.pre": rule}, folder, "test.gguf")
        assert load_tokenizer(folder).encode("abc") == expected
