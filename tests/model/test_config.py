"""config.json in and out: nothing is dropped, and what is not supported is named."""

import pytest

from jaxwiz.files import UserError
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.flops import device_peak_flops, forward_flops_per_token, train_flops_per_token

LLAMA_2_7B = {
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "hidden_act": "silu",
    "rope_scaling": None,
    "tie_word_embeddings": False,
}


def test_a_config_survives_the_trip():
    config = LlamaConfig.from_hf({**LLAMA_2_7B, "num_key_value_heads": 8, "head_dim": 64, "rope_theta": 1e6})
    assert (config.num_kv_heads, config.head_dim, config.rope_theta) == (8, 64, 1e6)
    assert LlamaConfig.from_hf(config.to_hf()) == config


def test_missing_keys_take_the_defaults_of_transformers():
    config = LlamaConfig.from_hf(LLAMA_2_7B)
    assert (config.num_kv_heads, config.head_dim, config.rope_theta) == (32, 128, 10_000.0)


def test_the_newer_spelling_of_rope_is_read():
    rope = {"rope_type": "default", "rope_theta": 5e5}
    assert LlamaConfig.from_hf({**LLAMA_2_7B, "rope_parameters": rope}).rope_theta == 5e5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "gemma"),
        ("hidden_act", "gelu"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("rope_scaling", {"type": "linear", "factor": 4.0}),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}),
        ("sliding_window", 4096),
    ],
)
def test_what_the_decoder_cannot_do_is_named(key: str, value: object):
    with pytest.raises(UserError, match=rf"config.json: {key}.*not supported"):
        LlamaConfig.from_hf({**LLAMA_2_7B, key: value})


def test_all_faults_are_named_at_once():
    with pytest.raises(UserError, match=r"hidden_act.*vocab_size: missing"):
        LlamaConfig.from_hf({"hidden_act": "gelu"})


@pytest.mark.parametrize(("changes", "field"), [({"num_kv_heads": 3}, "num_kv_heads"), ({"head_dim": 7}, "head_dim")])
def test_fields_that_do_not_fit_each_other_are_named(changes: dict, field: str):
    with pytest.raises(UserError, match=rf"^{field} = "):
        LlamaConfig(
            **{"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_layers": 1}
            | {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8}
            | changes
        )


def test_flops_of_llama_2_7b():
    config = LlamaConfig.from_hf(LLAMA_2_7B)
    matmul_params = 6_738_415_616 - 32_000 * 4096
    assert forward_flops_per_token(config, 0) == 2 * matmul_params
    attention = 4 * 32 * 4096 * 1024.5
    assert train_flops_per_token(config, 1024.5) == pytest.approx(6 * matmul_params + 3 * attention)


def test_peaks_are_known_for_accelerators_only():
    assert device_peak_flops("TPU v5 lite") == 197e12
    assert device_peak_flops("cpu") is None
