"""config.json in and out: nothing is dropped, and what is not supported is named."""

import dataclasses
import re

import pytest

from jaxwiz.files import UserError
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.rope_config import AnyScaling, DynamicScaling, LinearScaling, Llama3Scaling, YarnScaling

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
    biased = dataclasses.replace(config, attention_bias=True, mlp_bias=True, norm_epsilon=1e-6, tie_embeddings=True)
    assert LlamaConfig.from_hf(biased.to_hf()) == biased


def test_missing_keys_take_the_defaults_of_transformers():
    config = LlamaConfig.from_hf(LLAMA_2_7B)
    assert (config.num_kv_heads, config.head_dim, config.rope_theta) == (32, 128, 10_000.0)
    config = LlamaConfig.from_hf(LLAMA_2_7B | {"num_key_value_heads": None, "head_dim": None, "rope_theta": None})
    assert (config.num_kv_heads, config.head_dim, config.rope_theta) == (32, 128, 10_000.0)
    mistral = {key: value for key, value in LLAMA_2_7B.items() if key != "max_position_embeddings"}
    mistral |= {"model_type": "mistral", "sliding_window": None}
    config = LlamaConfig.from_hf(mistral)
    assert (config.num_kv_heads, config.max_positions) == (8, 131_072)


def test_the_newer_spelling_of_rope_is_read():
    rope = {"rope_type": "default", "rope_theta": 5e5}
    assert LlamaConfig.from_hf({**LLAMA_2_7B, "rope_parameters": rope}).rope_theta == 5e5


YARN = {"factor": 4.0, "original_max_position_embeddings": 512}
LLAMA_3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize(
    ("kind", "parameters", "expected"),
    [
        ("linear", {"factor": 4}, LinearScaling(factor=4.0)),
        ("dynamic", {"factor": 2.5}, DynamicScaling(factor=2.5)),
        ("yarn", YARN, YarnScaling(factor=4.0, original_positions=512)),
        (
            "yarn",
            YARN
            | {"beta_fast": 16, "beta_slow": 2, "mscale": 0.7, "mscale_all_dim": 0.8, "truncate": False}
            | {"attention_factor": None},
            YarnScaling(
                factor=4.0, original_positions=512, beta_fast=16, beta_slow=2, mscale=0.7, mscale_all_dim=0.8,
                truncate=False,
            ),
        ),
        ("yarn", {"factor": None, "original_max_position_embeddings": 512, "attention_factor": 1.5},
         YarnScaling(factor=8.0, original_positions=512, attention_factor=1.5)),
        ("llama3", LLAMA_3,
         Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_positions=8192)),
    ],
)  # fmt: skip
def test_rope_scaling_is_read_in_every_spelling_and_written(kind: str, parameters: dict, expected: AnyScaling):
    for spelling in (
        {"rope_theta": 2e4, "rope_scaling": {"type": kind, **parameters}},
        {"rope_theta": 2e4, "rope_scaling": {"rope_type": kind, "type": kind, **parameters}},
        {"rope_parameters": {"rope_type": kind, "rope_theta": 2e4, **parameters}},
        {"rope_parameters": {"rope_type": kind, "rope_theta": 2e4, "partial_rotary_factor": 1.0, **parameters}},
    ):
        config = LlamaConfig.from_hf(LLAMA_2_7B | {"rope_scaling": None} | spelling)
        assert (config.rope_scaling, config.rope_theta) == (expected, 2e4)
        assert LlamaConfig.from_hf(config.to_hf()) == config


def test_original_context_is_that_of_config_json_or_the_whole():
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    assert LlamaConfig.from_hf(LLAMA_2_7B | {"rope_scaling": rope}).rope_scaling.original_positions == 4096
    outside = LLAMA_2_7B | {"rope_scaling": rope, "original_max_position_embeddings": 1024}
    assert LlamaConfig.from_hf(outside).rope_scaling.original_positions == 1024


def test_only_dynamic_scaling_reaches_beyond_max_positions():
    scaling = {"type": "dynamic", "factor": 2.5}
    assert LlamaConfig.from_hf(LLAMA_2_7B | {"rope_scaling": scaling}).context_length == 10_240
    assert LlamaConfig.from_hf(LLAMA_2_7B | {"rope_scaling": scaling | {"type": "linear"}}).context_length == 4096


@pytest.mark.parametrize("window", [None, 4096])
def test_mistral_whose_window_is_not_in_use_is_read(window: int | None):
    config = LlamaConfig.from_hf(LLAMA_2_7B | {"model_type": "mistral", "sliding_window": window})
    assert config == dataclasses.replace(LlamaConfig.from_hf(LLAMA_2_7B), num_kv_heads=8)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "gemma"),
        ("hidden_act", "gelu"),
        ("sliding_window", 2048),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("attention_dropout", 0.1),
        ("quantization_config", {"quant_method": "gptq"}),
        ("partial_rotary_factor", 0.5),
        ("logits_scaling", 8.0),
        ("rope_scaling.rope_type", "longrope"),
        ("rope_parameters.rope_type", "longrope"),
    ],
)
def test_what_the_decoder_cannot_do_is_named(key: str, value: object):
    outer, _, inner = key.partition(".")
    data = LLAMA_2_7B | {outer: {inner: value} if inner else value}
    with pytest.raises(UserError, match=rf"config.json: {re.escape(f'{key} = {value!r}')}: not supported"):
        LlamaConfig.from_hf(data)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"type": "linear", "factor": 2, "beta_fast": 32}, "beta_fast = 32: not supported, rope type 'linear'"),
        ({"rope_type": "default", "factor": 2}, "factor = 2: not supported, rope type 'default'"),
        ({"type": "dynamic", "factor": 2, "alpha": 1000}, "alpha = 1000: not supported"),
        ({"type": "linear", "factor": 2, "partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5: not supported"),
        ({"type": "linear"}, "factor = None: Field required"),
        ({"type": "linear", "factor": 0.5}, "factor = 0.5: Input should be greater than or equal to 1"),
        ({"type": "linear", "factor": "wide"}, "factor = 'wide': Input should be a valid number"),
        ({"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}, "must be above low_freq_factor"),
        ({"type": "yarn", "factor": 8, "beta_fast": 1, "beta_slow": 2}, "must be at least beta_slow"),
        ({"type": "linear", "rope_type": "yarn", "factor": 2}, "rope_type and type differ"),
        ("linear", "must be a mapping or null"),
    ],
)
def test_faults_of_rope_scaling_are_named(scaling: object, message: str):
    with pytest.raises(UserError, match=rf"^config.json: rope_scaling.*{re.escape(message)}"):
        LlamaConfig.from_hf(LLAMA_2_7B | {"rope_scaling": scaling})


def test_two_spellings_that_differ_are_refused():
    scaling = {"rope_type": "linear", "factor": 2.0}
    with pytest.raises(UserError, match="differ; keep the one that is meant"):
        LlamaConfig.from_hf(LLAMA_2_7B | {"rope_scaling": scaling, "rope_parameters": scaling | {"factor": 4.0}})


def test_mistral_whose_window_is_absent_has_the_default_one():
    data = LLAMA_2_7B | {"model_type": "mistral", "max_position_embeddings": 32_768}
    with pytest.raises(UserError, match=r"sliding_window = 4096: not supported.*4096 where Mistral's is absent"):
        LlamaConfig.from_hf(data)


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_size", "wide"), ("num_hidden_layers", 0), ("rms_norm_eps", -1), ("vocab_size", None)]
)
def test_values_of_a_wrong_kind_are_named(key: str, value: object):
    with pytest.raises(UserError, match=rf"{key} = {value!r}: Input should be|head_dim: missing, and {key}"):
        LlamaConfig.from_hf(LLAMA_2_7B | {key: value})


def test_sizes_that_do_not_fit_each_other_are_named():
    with pytest.raises(UserError, match=r"^config.json: num_kv_heads = 3: must divide num_heads = 32$"):
        LlamaConfig.from_hf(LLAMA_2_7B | {"num_key_value_heads": 3})


def test_all_faults_are_named_at_once():
    data = {"hidden_act": "gelu", "quantization_config": {}, "rope_scaling": {"type": "su", "x": 1}}
    with pytest.raises(UserError, match=r"vocab_size: missing.*hidden_act.*quantization_config.*rope_type = 'su'"):
        LlamaConfig.from_hf(data)


@pytest.mark.parametrize(("changes", "field"), [({"num_kv_heads": 3}, "num_kv_heads"), ({"head_dim": 7}, "head_dim")])
def test_fields_that_do_not_fit_each_other_are_named(changes: dict, field: str):
    with pytest.raises(UserError, match=rf"^{field} = "):
        LlamaConfig(
            **{"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_layers": 1}
            | {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8}
            | changes
        )
