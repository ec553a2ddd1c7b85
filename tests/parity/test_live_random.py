"""Random models that transformers makes: imported they compute the same, exported they are the same files again."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from decoding import greedy, logits_at
from safetensors.numpy import load_file

from jaxwiz.checkpoint import weights
from jaxwiz.config import parse_config
from jaxwiz.convert.config import ConvertConfig
from jaxwiz.convert.run import run

torch = pytest.importorskip("torch", reason="needs the parity extra")
transformers = pytest.importorskip("transformers", reason="needs the parity extra")

pytestmark = pytest.mark.parity

SHAPES: dict[str, dict[str, Any]] = {
    "grouped": {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 24},
    "multi_head_tied": {"num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "one_kv_head_other_rope": {
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    },
    "starcoder": {"model_type": "gpt_bigcode", "n_head": 6, "activation_function": "gelu"},
}

# Widths by the names that each family has for them.
WIDTHS: dict[str, dict[str, int]] = {
    "llama": {
        "hidden_size": 96,
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "max_position_embeddings": 4096,
    },
    "gpt_bigcode": {"n_embd": 96, "n_inner": 112, "n_layer": 3, "n_positions": 4096},
}

# Four times the usual standard deviation, so that attention is far from uniform and logits from zero. Not more: at 0.15
# both implementations are 1e-3 off a float64 computation of the same model at 2,048 positions (the last bit of a rotary
# frequency, times the position), and float32 logits could not be compared to 1e-4.
WEIGHT_SCALE = 0.08


def _convert(out: Path, **body: Any) -> Path:
    return run(parse_config({"out": str(out), **body}, ConvertConfig, "test")) / "model"


def _make(folder: Path, tokenizer: Path, shape: dict[str, Any], dtype: torch.dtype) -> Any:
    """Saves a random model with a tokenizer, and returns it."""
    torch.manual_seed(0)
    family = shape.get("model_type", "llama")
    values = {key: value for key, value in (WIDTHS[family] | shape).items() if key != "model_type"}
    config = transformers.AutoConfig.for_model(
        family,
        vocab_size=400,
        initializer_range=WEIGHT_SCALE,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **values,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # transformers starts norms at one and biases at zero, which would hide a swap
                parameter.uniform_(*((-0.2, 0.2) if name.endswith("bias") else (0.5, 1.5)))
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return model


@pytest.mark.parametrize("shape", SHAPES)
def test_imported_model_computes_the_same(tmp_path: Path, tiny_tokenizer_folder: Path, shape: str) -> None:
    theirs = _make(tmp_path / "hf", tiny_tokenizer_folder, SHAPES[shape], torch.float32)
    checkpoint = _convert(tmp_path / "to-checkpoint", source={"kind": "hf", "path": str(tmp_path / "hf")})
    params, config = weights.load_weights(checkpoint), weights.load_model_config(checkpoint)
    for length in (8, 2048):
        tokens = np.random.default_rng(length).integers(0, 400, length)
        with torch.no_grad():
            expected = theirs(torch.tensor(tokens[None])).logits[0].numpy()
        found = logits_at(params, config, tokens.tolist(), range(length))
        print(f"{shape}, {length} positions: largest difference {np.abs(found - expected).max():.1e}")
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [("grouped", "float32"), ("grouped", "bfloat16"), ("grouped", "float16"), ("starcoder", "bfloat16")],
)
def test_exported_folder_is_the_imported_one(
    tmp_path: Path, tiny_tokenizer_folder: Path, shape: str, dtype: str
) -> None:
    theirs = _make(tmp_path / "hf", tiny_tokenizer_folder, SHAPES[shape], getattr(torch, dtype))
    checkpoint = _convert(tmp_path / "to-checkpoint", source={"kind": "hf", "path": str(tmp_path / "hf")})
    exported = _convert(tmp_path / "to-hf", source={"kind": "checkpoint", "path": str(checkpoint)}, target="hf")
    before, after = load_file(tmp_path / "hf" / "model.safetensors"), load_file(exported / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert (tensor.dtype, tensor.tobytes()) == (after[name].dtype, after[name].tobytes()), name
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (exported / name).read_bytes() == (tmp_path / "hf" / name).read_bytes()
    again = transformers.AutoModelForCausalLM.from_pretrained(exported).eval()
    assert again.config.to_dict() | {"_name_or_path": ""} == theirs.config.to_dict() | {"_name_or_path": ""}
    assert again.dtype == theirs.dtype
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    tokens = tokenizer("def add(first, second):", return_tensors="pt").input_ids
    options: dict[str, Any] = {"max_new_tokens": 16, "do_sample": False}
    assert again.generate(tokens, **options).tolist() == theirs.generate(tokens, **options).tolist()


MADE_HERE: dict[str, dict[str, Any]] = {
    "llama": {"num_kv_heads": 2, "head_dim": 24, "rope_theta": 1e5},
    "gpt_bigcode": {"kind": "gpt_bigcode", "activation": "gelu_tanh", "tie_embeddings": False},
}


@pytest.mark.parametrize("family", MADE_HERE)
def test_checkpoint_made_here_loads_in_transformers(tmp_path: Path, tiny_tokenizer_folder: Path, family: str) -> None:
    model = MADE_HERE[family] | {
        "vocab_size": 400,
        "hidden_size": 96,
        "intermediate_size": 112,
        "num_layers": 3,
        "num_heads": 6,
    }
    source = {"kind": "random", "model": model, "tokenizer": str(tiny_tokenizer_folder), "seed": 3}
    checkpoint = _convert(tmp_path / "made", source=source)
    exported = _convert(tmp_path / "to-hf", source={"kind": "checkpoint", "path": str(checkpoint)}, target="hf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32).eval()
    theirs.generation_config.eos_token_id = None
    params, config = weights.load_weights(checkpoint), weights.load_model_config(checkpoint)
    # Initial weights say almost the same for every token, so that greedy steps would be ties: make them say more.
    params = jax.tree.map(lambda leaf: leaf * 8, params)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(8)
    tokens = [5, 17, 200, 33]
    expected = theirs.generate(torch.tensor([tokens]), max_new_tokens=24, do_sample=False)[0, len(tokens) :].tolist()
    assert greedy(params, config, [tokens], 24) == [expected]
