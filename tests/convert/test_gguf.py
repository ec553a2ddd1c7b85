"""GGUF files of a tiny model, written here as llama.cpp's converter lays them out, are read back exactly."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import gguf
import jax
import numpy as np
import pytest

from jaxwiz.convert.gguf_in import GgufReader, check_gguf, read_gguf, split_rotary_halves
from jaxwiz.convert.names import ConversionError, rules_for, tensor_names
from jaxwiz.convert.tensors import ModelFiles, ParamsReader, get_leaf, tensor_of
from jaxwiz.files import sha256_of_file
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import abstract_params, init_params
from jaxwiz.model.rope_config import LinearScaling, Llama3Scaling, YarnScaling
from jaxwiz.text.tokenizer import load_tokenizer

WriteGguf = Callable[..., Path]


def _as_llama_cpp(weight: np.ndarray, heads: int) -> np.ndarray:
    """Interleaves the two rotary halves of each head, row by row; of a weight or a bias."""
    head_dim = weight.shape[0] // heads
    result = np.empty_like(weight)
    for head in range(heads):
        for i in range(head_dim // 2):
            result[head * head_dim + 2 * i] = weight[head * head_dim + i]
            result[head * head_dim + 2 * i + 1] = weight[head * head_dim + head_dim // 2 + i]
    return result


@pytest.fixture
def write_gguf(tmp_path: Path, tiny_model: ModelFiles) -> WriteGguf:
    """Writes a tiny model as a GGUF whose metadata the arguments change; None leaves a key out."""

    def write(
        model: ModelFiles = tiny_model,
        architecture: str = "llama",
        rope_factors: np.ndarray | None = None,
        **changes: object,
    ) -> Path:
        config = model.config
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
        for rule in rules_for(config):
            leaf = get_leaf(model.params, rule.param)
            for layer, name in enumerate(tensor_names(rule, config, "gguf")):
                tensor = tensor_of(rule, leaf, layer)
                if rule.rotary:
                    tensor = _as_llama_cpp(tensor, config.num_heads if ".q." in rule.param else config.num_kv_heads)
                writer.add_tensor(name, np.ascontiguousarray(tensor))
        if rope_factors is not None:
            writer.add_tensor("rope_freqs.weight", rope_factors.astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def test_rotary_halves_of_one_head_of_four() -> None:
    interleaved = np.array([[0.0], [2.0], [1.0], [3.0]])
    np.testing.assert_array_equal(split_rotary_halves(interleaved, head_dim=4), [[0.0], [1.0], [2.0], [3.0]])


VARIANTS: dict[str, dict[str, object]] = {
    "untied": {},
    "tied": {"tie_embeddings": True},
    "biased": {"attention_bias": True, "mlp_bias": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_model_is_read_back_exactly(
    write_gguf: WriteGguf, tiny_model: ModelFiles, tiny_config: LlamaConfig, tmp_path: Path, variant: str
) -> None:
    scratch = tmp_path / "tokenizer"
    scratch.mkdir()
    config = dataclasses.replace(tiny_config, **VARIANTS[variant])  # type: ignore[arg-type]
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), abstract_params(config))
    path = write_gguf(dataclasses.replace(tiny_model, tensors=ParamsReader(params, config), config=config))
    found = read_gguf(path, scratch, "test")
    assert found.config == check_gguf(path) == config
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    assert found.digest() == sha256_of_file(path)
    ours, original = load_tokenizer(scratch), load_tokenizer(tiny_model.tokenizer)
    text = "def add(first, second):\n\treturn 12 + first  # naïve 漢字 🙂"
    assert ours.encode(text) == original.encode(text)
    assert ours.decode(ours.encode(text)) == text
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, 0)
    assert ours.special_id("<|im_start|>") == 1


def test_rows_are_read_in_parts(write_gguf: WriteGguf, tiny_config: LlamaConfig) -> None:
    reader = GgufReader(write_gguf())
    name = "model.layers.1.self_attn.q_proj.weight"  # 6 heads of 4 rows
    parts = [reader.read_rows(name, start, start + 8) for start in (0, 8, 16)]
    np.testing.assert_array_equal(np.concatenate(parts), reader.read_rows(name, 0, 24))
    norm = "model.norm.weight"
    parts = [reader.read_rows(norm, start, start + 10) for start in (0, 10)]
    np.testing.assert_array_equal(np.concatenate(parts), reader.read_rows(norm, 0, tiny_config.hidden_size))


BETA = "llama.rope.scaling.yarn_beta_fast"
LINEAR = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
YARN = {
    "llama.rope.scaling.type": "yarn",
    "llama.rope.scaling.factor": 1.7,
    "llama.rope.scaling.original_context_length": 512,
}


def llama_3_factors(theta: float, head_dim: int, factor: float) -> np.ndarray:
    """Returns by what Llama 3 divides each frequency, as llama.cpp's converter works it out, one after another."""
    factors = []
    for i in range(head_dim // 2):
        wavelength = 2 * math.pi * theta ** (2 * i / head_dim)
        if wavelength < 8192 / 4:
            factors.append(1.0)
        elif wavelength > 8192:
            factors.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (LINEAR, LinearScaling(factor=4.0)),
        (YARN, YarnScaling(factor=1.7, original_positions=512)),
        (YARN | {BETA: 20.0}, YarnScaling(factor=1.7, original_positions=512, beta_fast=20.0)),
    ],
    ids=["linear", "yarn", "yarn with beta"],
)
def test_rope_scaling_in_the_metadata(write_gguf: WriteGguf, changes: dict[str, object], expected: object) -> None:
    path = write_gguf(**{key.replace(".", "__"): value for key, value in changes.items()})
    assert check_gguf(path).rope_scaling == expected


def test_llama_3s_rope_scaling_is_found_in_its_factors(write_gguf: WriteGguf, tiny_model: ModelFiles) -> None:
    factors = llama_3_factors(500_000.0, 64, 32.0)
    assert np.sum((factors > 1) & (factors < 32)) > 1 and factors[0] == 1 and factors[-1] == 32  # all three parts
    config = dataclasses.replace(tiny_model.config, head_dim=64, rope_theta=500_000.0)
    params = init_params(config, jax.random.key(0))
    model = dataclasses.replace(tiny_model, tensors=ParamsReader(jax.device_get(params), config), config=config)
    expected = Llama3Scaling(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_positions=8192)
    assert check_gguf(write_gguf(model, rope_factors=factors)).rope_scaling == expected
    assert check_gguf(write_gguf(model, rope_factors=np.ones(32))).rope_scaling is None
    with pytest.raises(ConversionError, match=r"rope_freqs\.weight: its frequency factors are not those of Llama 3"):
        check_gguf(write_gguf(model, rope_factors=np.linspace(1, 32, 32)))
    with pytest.raises(ConversionError, match="must not be there together"):
        check_gguf(write_gguf(model, rope_factors=factors, llama__rope__scaling__type="linear"))


def test_smollm_rule_splits_digits(write_gguf: WriteGguf, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    read_gguf(write_gguf(tokenizer__ggml__pre="smollm"), tmp_path, "test")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("x  42 y")] == ["x", "ĠĠ", "4", "2", "Ġy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer__ggml__pre": "unheard-of"}, "tokenizer.ggml.pre = 'unheard-of': known are gpt-2, smollm"),
        ({"tokenizer__ggml__model": "llama"}, "tokenizer.ggml.scores has 0 entries for 400 tokens"),
        ({"tokenizer__ggml__model": "t5"}, "tokenizer.ggml.model = 't5': must be 'gpt2'"),
        ({"tokenizer__ggml__eos_token_id": None}, "eos_token_id is missing"),
        ({"llama__rope__scaling__type": "longrope"}, "llama.rope.scaling.type = 'longrope': not supported"),
        ({"llama__rope__scaling__type": "yarn"}, "llama.rope.scaling.factor: missing"),
        ({"llama__rope__scaling__attn_factor": 2.0}, "llama.rope.scaling.attn_factor = 2.0: not supported"),
        ({"llama__expert_count": 8}, "llama.expert_count = 8: not supported"),
        ({"llama__attention__head_count": 0}, "llama.attention.head_count = 0: must be one number above 0"),
        ({"llama__block_count": 10**9}, "llama.block_count = 1000000000: the file holds only"),
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
