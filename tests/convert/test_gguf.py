"""GGUF files of a tiny model, written here as llama.cpp's converter lays them out, are read back exactly."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import gguf
import jax
import numpy as np
import pytest

from jaxwiz.convert.gguf_in import check_gguf, read_gguf, split_rotary_halves
from jaxwiz.convert.names import ConversionError, rules_for, tensor_names
from jaxwiz.convert.tensors import ModelFiles, get_leaf, tensor_of
from jaxwiz.model.config import LlamaConfig
from jaxwiz.text.tokenizer import load_tokenizer

WriteGguf = Callable[..., Path]


def _as_llama_cpp(weight: np.ndarray, heads: int) -> np.ndarray:
    """Interleaves the two rotary halves of each head, row by row."""
    head_dim = weight.shape[0] // heads
    result = np.empty_like(weight)
    for head in range(heads):
        for i in range(head_dim // 2):
            result[head * head_dim + 2 * i] = weight[head * head_dim + i]
            result[head * head_dim + 2 * i + 1] = weight[head * head_dim + head_dim // 2 + i]
    return result


@pytest.fixture
def write_gguf(tmp_path: Path, tiny_model: ModelFiles) -> WriteGguf:
    """Writes the tiny model as a GGUF whose metadata the arguments change; None leaves a key out."""

    def write(tied: bool = False, architecture: str = "llama", **changes: object) -> Path:
        config = tiny_model.config
        spec = json.loads((tiny_model.tokenizer / "tokenizer.json").read_text())
        vocabulary = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)
        vocabulary += [f"<unused-{i}>" for i in range(config.vocab_size - len(vocabulary))]
        control = {token["content"] for token in spec["added_tokens"]}
        metadata: dict[str, object] = {
            "llama.context_length": config.max_positions,
            "llama.embedding_length": config.hidden_size,
            "llama.block_count": config.num_layers,
            "llama.feed_forward_length": config.intermediate_size,
            "llama.attention.head_count": config.num_heads,
            "llama.attention.head_count_kv": config.num_kv_heads,
            "llama.attention.key_length": config.head_dim,
            "llama.attention.layer_norm_rms_epsilon": config.norm_epsilon,
            "llama.rope.freq_base": config.rope_theta,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.padding_token_id": 0,
            "tokenizer.ggml.tokens": vocabulary,
            "tokenizer.ggml.token_type": [3 if token in control else 1 for token in vocabulary],
            "tokenizer.ggml.merges": [" ".join(merge) for merge in spec["model"]["merges"]],
        } | {key.replace("__", "."): value for key, value in changes.items()}
        path = tmp_path / "model.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        for key, value in metadata.items():
            if isinstance(value, list):
                writer.add_array(key, value)
            elif isinstance(value, str):
                writer.add_string(key, value)
            elif isinstance(value, float):
                writer.add_float32(key, value)
            elif value is not None:
                writer.add_uint32(key, int(str(value)))
        for rule in rules_for(dataclasses.replace(config, tie_embeddings=tied)):
            leaf = get_leaf(tiny_model.params, rule.param)
            for layer, name in enumerate(tensor_names(rule, config, "gguf")):
                tensor = tensor_of(rule, leaf, layer, config, np.dtype(np.float32))
                if rule.param in ("layers.attn.q", "layers.attn.k"):
                    tensor = _as_llama_cpp(
                        tensor, config.num_heads if rule.param.endswith("q") else config.num_kv_heads
                    )
                writer.add_tensor(name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def test_rotary_halves_of_one_head_of_four() -> None:
    interleaved = np.array([[0.0], [2.0], [1.0], [3.0]])
    np.testing.assert_array_equal(split_rotary_halves(interleaved, head_dim=4), [[0.0], [1.0], [2.0], [3.0]])


@pytest.mark.parametrize("tied", [False, True])
def test_model_is_read_back_exactly(
    write_gguf: WriteGguf, tiny_model: ModelFiles, tiny_config: LlamaConfig, tmp_path: Path, tied: bool
) -> None:
    scratch = tmp_path / "tokenizer"
    scratch.mkdir()
    path = write_gguf(tied=tied)
    found = read_gguf(path, scratch, "test")
    assert found.config == dataclasses.replace(tiny_config, tie_embeddings=tied)
    assert check_gguf(path) == found.config
    expected = {key: value for key, value in tiny_model.params.items() if key != "head" or not tied}
    jax.tree.map(np.testing.assert_array_equal, found.params, expected)
    ours, original = load_tokenizer(scratch), load_tokenizer(tiny_model.tokenizer)
    text = "def add(first, second):\n\treturn 12 + first  # naïve 漢字 🙂"
    assert ours.encode(text) == original.encode(text)
    assert ours.decode(ours.encode(text)) == text
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, 0)
    assert ours.special_id("<|im_start|>") == 1


def test_smollm_rule_splits_digits(write_gguf: WriteGguf, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    read_gguf(write_gguf(tokenizer__ggml__pre="smollm"), tmp_path, "test")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("x  42 y")] == ["x", "ĠĠ", "4", "2", "Ġy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer__ggml__pre": "unheard-of"}, "tokenizer.ggml.pre = 'unheard-of': known are smollm"),
        ({"tokenizer__ggml__model": "llama"}, "tokenizer.ggml.model = 'llama': only 'gpt2'"),
        ({"tokenizer__ggml__eos_token_id": None}, "eos_token_id is missing"),
        ({"llama__rope__scaling__type": "yarn"}, "llama.rope.scaling.type = 'yarn': not supported"),
        ({"llama__rope__dimension_count": 2}, "must be the head size 4"),
        ({"llama__block_count": 2}, "blk.2.attn_q.weight: unknown"),
        ({"llama__block_count": 4}, "model.layers.3.mlp.up_proj.weight: missing"),
        ({"llama__feed_forward_length": None}, "llama.feed_forward_length: missing"),
        ({"architecture": "qwen2"}, "general.architecture = 'qwen2'; must be 'llama'"),
    ],
)
def test_what_does_not_fit_is_named(
    write_gguf: WriteGguf, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConversionError) as raised:
        read_gguf(write_gguf(**changes), tmp_path, "test")
    assert message in str(raised.value)


@pytest.mark.parametrize("kept_bytes", [0, 3, 40, 5_000, 60_000])
def test_truncated_file_is_one_clear_error(write_gguf: WriteGguf, tmp_path: Path, kept_bytes: int) -> None:
    path = write_gguf()
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(ConversionError, match=r"model\.gguf"):
        read_gguf(path, tmp_path, "test")
