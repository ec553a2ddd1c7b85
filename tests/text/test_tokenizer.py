"""Tokenizers: text stays text, files stay as they are, and a continuing text gets no space of the tokenizer's own."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from jaxwiz.files import hash_tree
from jaxwiz.text.tokenizer import Tokenizer, TokenizerError, load_tokenizer

TEXTS = [
    "def add(a, b):\n\treturn a + b\r\n",
    "    indented",
    " one leading space",
    "smile 😀, 漢字, é, \x00\x07",
    "<|im_end|> and </s> and <s>[INST]",
    "",
]


@pytest.fixture(params=["tiny_tokenizer_folder", "sentencepiece_folder"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return load_tokenizer(request.getfixturevalue(request.param))


@pytest.mark.parametrize("continues", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_decoding_gives_the_text_back_and_no_control_token_came_in(tokenizer, text, continues):
    ids = tokenizer.encode(text, continues)
    assert tokenizer.decode(ids, continues) == text
    assert not {tokenizer.bos_id, tokenizer.eos_id} & set(ids)


def test_a_batch_equals_its_texts_alone(tokenizer):
    for continues in (False, True):
        assert tokenizer.encode_batch(TEXTS, continues) == [tokenizer.encode(text, continues) for text in TEXTS]
    assert tokenizer.encode_batch([]) == []


def test_decoding_leaves_out_control_tokens_and_ids_beyond_the_vocabulary(tokenizer):
    ids = tokenizer.encode("return")
    assert tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.vocab_size + 5]) == "return"


def test_special_ids_are_known_by_their_exact_string(tiny_tokenizer_folder, sentencepiece_folder):
    byte_level, pieces = load_tokenizer(tiny_tokenizer_folder), load_tokenizer(sentencepiece_folder)
    assert [byte_level.special_id(name) for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [0, 1, 2]
    assert (byte_level.bos_id, byte_level.eos_id, byte_level.pad_id) == (1, 2, 0)
    assert pieces.special_id("</s>") == pieces.eos_id == 2
    for each in (byte_level, pieces):
        with pytest.raises(TokenizerError, match="'return'"):
            each.special_id("return")


def test_saving_keeps_the_files_byte_for_byte(tiny_tokenizer_folder, sentencepiece_folder, tmp_path):
    for folder in (tiny_tokenizer_folder, sentencepiece_folder):
        tokenizer = load_tokenizer(folder)
        tokenizer.save(tmp_path / folder.name / "tokenizer")
        assert hash_tree(tmp_path / folder.name / "tokenizer") == hash_tree(folder)
        # A checkpoint is a folder with `tokenizer/` in it.
        assert load_tokenizer(tmp_path / folder.name).digest == tokenizer.digest


def test_the_model_files_name_eos_where_the_tokenizer_files_do_not(tiny_tokenizer_folder, tmp_path):
    shutil.copy(tiny_tokenizer_folder / "tokenizer.json", tmp_path)
    with pytest.raises(TokenizerError, match="eos_token"):
        load_tokenizer(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0], "bos_token_id": 1}))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 7, "pad_token_id": 0}))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 0)
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").eos_id == 2


def test_settings_in_other_files_and_forms(tiny_tokenizer_folder, tmp_path):
    shutil.copy(tiny_tokenizer_folder / "tokenizer.json", tmp_path)
    settings = {"eos_token": {"content": "<|endoftext|>", "special": True}, "bos_token": "<|im_start|>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.adds_bos) == (0, 0, False)


def test_bos_is_added_as_the_tokenizers_own_settings_say(tiny_tokenizer_folder, sentencepiece_folder, tmp_path):
    from tokenizers import Tokenizer as Library
    from tokenizers.processors import TemplateProcessing

    assert not load_tokenizer(tiny_tokenizer_folder).adds_bos
    assert load_tokenizer(sentencepiece_folder).adds_bos
    library = Library.from_file(str(tiny_tokenizer_folder / "tokenizer.json"))
    library.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    library.save(str(tmp_path / "tokenizer.json"))
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}))
    assert load_tokenizer(tmp_path).adds_bos
    config.write_text(json.dumps({"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "add_bos_token": False}))
    assert not load_tokenizer(tmp_path).adds_bos


def test_truncation_and_padding_in_the_file_change_no_text(tiny_tokenizer_folder, tmp_path):
    from tokenizers import Tokenizer as Library

    library = Library.from_file(str(tiny_tokenizer_folder / "tokenizer.json"))
    library.enable_truncation(2)
    library.enable_padding(length=64)
    library.save(str(tmp_path / "tokenizer.json"))
    shutil.copy(tiny_tokenizer_folder / "tokenizer_config.json", tmp_path)
    text = "for value in values:"
    assert load_tokenizer(tmp_path).encode(text) == load_tokenizer(tiny_tokenizer_folder).encode(text)


@pytest.mark.parametrize("manner", ["prepend", "metaspace"])
def test_a_leading_space_of_tokenizer_json_is_left_out_of_continuing_text(manner, tmp_path):
    """Llama 2's tokenizer.json comes in both manners: Prepend and Strip in old files, Metaspace in new ones."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    library = Library(models.BPE(vocab={"<unk>": 0, "</s>": 1, "▁": 2, "x": 3, "▁x": 4}, merges=[("▁", "x")]))
    if manner == "prepend":
        library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        library.decoder = decoders.Metaspace(prepend_scheme="first")
    library.add_special_tokens(["</s>"])
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("x") == [4]
    assert tokenizer.encode("x", continues=True) == [3]
    assert tokenizer.decode([4]) == "x"
    assert tokenizer.decode([4], continues=True) == " x"


@pytest.mark.parametrize(
    ("name", "content"),
    [("tokenizer.json", "{"), ("tokenizer.json", '{"model": {}}'), ("tokenizer.model", "text"), ("other.txt", "text")],
)
def test_a_folder_without_a_usable_tokenizer_is_named(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(TokenizerError, match=str(tmp_path)):
        load_tokenizer(tmp_path)


def test_an_eos_that_the_vocabulary_lacks_is_named(tiny_tokenizer_folder, tmp_path):
    shutil.copy(tiny_tokenizer_folder / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(TokenizerError, match="'</s>' is not in"):
        load_tokenizer(tmp_path)


def test_llama_2_begins_texts_with_bos_and_knows_its_control_pieces(llama_2: Tokenizer, tmp_path: Path):
    assert (llama_2.vocab_size, llama_2.bos_id, llama_2.eos_id, llama_2.adds_bos) == (32_000, 1, 2, True)
    assert llama_2.encode("def f", continues=True) == [1753, 285]  # "def", "▁f": no space before the first
    for text in TEXTS:
        assert llama_2.decode(llama_2.encode(text)) == text


def test_tokens_that_the_settings_call_special_are_control_tokens_whatever_tokenizer_json_says(
    tiny_tokenizer_folder: Path, tmp_path: Path
):
    spec = json.loads((tiny_tokenizer_folder / "tokenizer.json").read_text())
    for token in spec["added_tokens"]:
        token["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    settings = {"eos_token": "<|im_end|>", "additional_special_tokens": [{"content": "<|im_start|>"}]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(tmp_path)
    assert [token.text for token in tokenizer.controls] == ["<|im_start|>", "<|im_end|>"]
    assert tokenizer.roles == {"eos_token": "<|im_end|>"}
    assert not {1, 2} & set(tokenizer.encode("<|im_start|><|im_end|>"))
    assert tokenizer.encode("<|endoftext|>") == [0]  # an ordinary added token, as in transformers


def test_control_tokens_and_roles_of_a_sentencepiece_model(sentencepiece_folder: Path):
    tokenizer = load_tokenizer(sentencepiece_folder)
    assert [(token.text, token.id) for token in tokenizer.controls] == [("<s>", 1), ("</s>", 2)]
    assert tokenizer.roles == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert tokenizer.chat_template is None


def test_a_tokenizer_can_be_sent_to_another_process(tokenizer: Tokenizer):
    sent = pickle.loads(pickle.dumps(tokenizer))
    assert sent.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert (sent.digest, sent.controls, sent.roles) == (tokenizer.digest, tokenizer.controls, tokenizer.roles)
