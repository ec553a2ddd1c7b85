"""The name table covers the parameter tree exactly, and turns tensors as Hugging Face lays them out."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxwiz.convert.names import LLAMA_RULES, ConversionError, require_tensors, rules_for, tensor_names, tied_copies
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.gpt_bigcode_config import GPTBigCodeConfig
from jaxwiz.model.params import param_specs

BIGCODE = GPTBigCodeConfig(
    vocab_size=50, hidden_size=24, intermediate_size=28, num_layers=3, num_heads=6, max_positions=16
)


@pytest.mark.parametrize("tied", [False, True])
def test_table_and_parameter_tree_agree_in_names_and_shapes(tiny_config: LlamaConfig, tied: bool) -> None:
    config = dataclasses.replace(tiny_config, tie_embeddings=tied)
    leaves, _ = jax.tree_util.tree_flatten_with_path(param_specs(config), is_leaf=lambda node: hasattr(node, "axes"))
    declared = {jax.tree_util.keystr(path, simple=True, separator="."): tuple(spec.shape) for path, spec in leaves}
    assert {rule.param: rule.param_shape(config) for rule in rules_for(config)} == declared


@pytest.mark.parametrize("tied", [False, True])
def test_the_table_of_gpt_bigcode_agrees_too_and_turns_back(tied: bool) -> None:
    config = dataclasses.replace(BIGCODE, tie_embeddings=tied)
    leaves, _ = jax.tree_util.tree_flatten_with_path(param_specs(config), is_leaf=lambda node: hasattr(node, "axes"))
    declared = {jax.tree_util.keystr(path, simple=True, separator="."): tuple(spec.shape) for path, spec in leaves}
    assert {rule.param: rule.param_shape(config) for rule in rules_for(config)} == declared
    for rule in rules_for(config):
        tensor = np.arange(np.prod(rule.tensor_shape(config))).reshape(rule.tensor_shape(config))
        np.testing.assert_array_equal(rule.to_tensor(rule.to_param(tensor, config)), tensor)


def test_the_fused_projection_has_queries_then_key_then_value() -> None:
    rule = next(rule for rule in rules_for(BIGCODE) if rule.param == "layers.attn.qkv.kernel")
    assert tensor_names(rule, BIGCODE)[1] == "transformer.h.1.attn.c_attn.weight"
    tensor = np.arange(32 * 24).reshape(32, 24)  # 6 queries, key and value, of 4
    param = rule.to_param(tensor, BIGCODE)
    assert param[7, 5, 2] == tensor[5 * 4 + 2, 7]  # a query
    assert param[7, 6, 2] == tensor[24 + 2, 7]  # the key
    assert param[7, 7, 2] == tensor[28 + 2, 7]  # the value


def test_a_tied_copy_of_the_embedding_is_known() -> None:
    assert tied_copies(["lm_head.weight"], BIGCODE) == [("lm_head.weight", "transformer.wte.weight")]
    assert tied_copies(["lm_head.weight"], dataclasses.replace(BIGCODE, tie_embeddings=False)) == []


def _rule(param: str) -> object:
    return next(rule for rule in LLAMA_RULES if rule.param == param)


def test_query_rows_are_heads_then_head_size(tiny_config: LlamaConfig) -> None:
    N, H, D = tiny_config.num_heads, tiny_config.head_dim, tiny_config.hidden_size
    tensor = np.arange(N * H * D).reshape(N * H, D)
    param = _rule("layers.attn.q.kernel").to_param(tensor, tiny_config)
    assert param.shape == (D, N, H)
    assert param[7, 5, 2] == tensor[5 * H + 2, 7]


def test_output_columns_are_heads_then_head_size(tiny_config: LlamaConfig) -> None:
    N, H, D = tiny_config.num_heads, tiny_config.head_dim, tiny_config.hidden_size
    tensor = np.arange(D * N * H).reshape(D, N * H)
    param = _rule("layers.attn.o.kernel").to_param(tensor, tiny_config)
    assert param.shape == (N, H, D)
    assert param[5, 2, 7] == tensor[7, 5 * H + 2]


def test_every_rule_turns_back(tiny_config: LlamaConfig) -> None:
    for rule in LLAMA_RULES:
        shape = rule.tensor_shape(tiny_config)
        tensor = np.arange(np.prod(shape)).reshape(shape)
        np.testing.assert_array_equal(rule.to_tensor(rule.to_param(tensor, tiny_config)), tensor)


def test_all_faults_are_reported_at_once(tiny_config: LlamaConfig) -> None:
    shapes = {
        name: rule.tensor_shape(tiny_config)
        for rule in rules_for(tiny_config)
        for name in tensor_names(rule, tiny_config)
    }
    shapes["model.layers.0.self_attn.rotary_emb.inv_freq"] = (2,)  # derived from the config: no fault
    require_tensors(shapes, tiny_config, "folder")
    del shapes["model.norm.weight"]
    shapes["model.layers.1.mlp.up_proj.weight"] = (20, 28)
    shapes["model.layers.0.self_attn.q_proj.bias"] = (24,)
    with pytest.raises(ConversionError) as raised:
        require_tensors(shapes, tiny_config, "folder", faults=["lm_head.weight: found more than once"])
    message = str(raised.value)
    assert message.startswith("folder: 4 tensor(s)")
    for part in (
        "model.norm.weight: missing, expected [20]",
        "up_proj.weight: has shape [20, 28], the config asks for [28, 20]",
        "q_proj.bias: unknown",
        "lm_head.weight: found more than once",
    ):
        assert part in message
