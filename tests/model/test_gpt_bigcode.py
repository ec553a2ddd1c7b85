"""The GPTBigCode family keeps to the decoder's rules: config, declarations, packed and cached passes, meshes, refusals.

That it computes what transformers does is shown by `test_decoder_golden.py` and tests/parity/test_live_families.py.
"""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding import cached_pass, empty_cache

from jaxwiz.config import ConfigError, dump_config
from jaxwiz.files import UserError
from jaxwiz.model.config import LlamaConfig, model_config_from_hf, parse_model_config
from jaxwiz.model.decoder import hidden_states, logits
from jaxwiz.model.flops import matmul_params
from jaxwiz.model.gpt_bigcode import layer_norm
from jaxwiz.model.gpt_bigcode_config import GPTBigCodeConfig
from jaxwiz.model.inference import inference_weights, weight_shardings
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.model.lora_params import lora_specs
from jaxwiz.model.pages import cache_shardings, init_pages, token_bytes
from jaxwiz.model.params import Params, abstract_params, count_params, init_params, param_specs
from jaxwiz.sharding.mesh import AXES
from jaxwiz.sharding.rules import param_shardings
from tests.devices import run_on_eight_devices

STARCODER = {
    "model_type": "gpt_bigcode",
    "activation_function": "gelu",
    "vocab_size": 49152,
    "n_embd": 6144,
    "n_head": 48,
    "n_inner": 24576,
    "n_layer": 40,
    "n_positions": 8192,
    "layer_norm_epsilon": 1e-5,
    "multi_query": True,
    "scale_attn_weights": True,
    "attn_pdrop": 0.1,
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
}
# Every axis has its own size, so that a swapped pair cannot pass.
MODEL = GPTBigCodeConfig(
    vocab_size=50, hidden_size=24, intermediate_size=28, num_layers=3, num_heads=6, max_positions=16
)
TOKENS = jax.random.randint(jax.random.key(1), (2, 11), 0, MODEL.vocab_size)
POSITIONS = jnp.broadcast_to(jnp.arange(11), (2, 11))


@pytest.fixture(scope="module")
def params() -> Params:
    """Parameters of which none is zero or one."""
    leaves, tree = jax.tree.flatten(init_params(MODEL, jax.random.key(0)))
    keys = jax.random.split(jax.random.key(2), len(leaves))
    loud = [leaf * 3 + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, loud)


def test_starcoder_is_read_and_has_its_published_size():
    config = model_config_from_hf(STARCODER)
    assert config == GPTBigCodeConfig(
        vocab_size=49152, hidden_size=6144, intermediate_size=24576, num_layers=40, num_heads=48, activation="gelu",
        max_positions=8192,
    )  # fmt: skip
    assert (config.num_kv_heads, config.head_dim, config.context_length) == (1, 128, 8192)
    assert count_params(config) == 15_517_456_384
    # Neither positions nor norms and biases multiply; the embedding does, as the head.
    assert matmul_params(config) == 49152 * 6144 + 40 * 6144 * (50 * 128 + 48 * 128 + 2 * 24576)
    assert token_bytes(config, "bfloat16") == 2 * 40 * 128 * 2
    assert model_config_from_hf(config.to_hf()) == config


def test_what_config_json_leaves_out_is_what_transformers_takes():
    config = model_config_from_hf(
        {key: STARCODER[key] for key in ("model_type", "vocab_size", "n_embd", "n_layer", "n_head")}
    )
    assert (config.intermediate_size, config.max_positions, config.tie_embeddings) == (4 * 6144, 1024, True)
    assert isinstance(config, GPTBigCodeConfig)
    assert config.activation == "gelu_tanh"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"multi_query": False}, "multi_query = False: not supported, this decoder does True"),
        ({"scale_attn_weights": False}, "scale_attn_weights = False: not supported"),
        ({"activation_function": "relu"}, "activation_function = 'relu': not supported, this decoder does 'gelu' or"),
        ({"add_cross_attention": True}, "add_cross_attention = True: not supported"),
        ({"n_head": 7}, "num_heads = 7: must divide hidden_size = 6144"),
        ({"n_layer": 0, "n_positions": "x"}, r"n_layer = 0: .* n_positions = 'x': "),
    ],
)
def test_what_the_decoder_does_not_do_is_refused(change: dict, said: str):
    with pytest.raises(UserError, match=said):
        model_config_from_hf(STARCODER | change)


def test_missing_keys_are_all_named():
    with pytest.raises(UserError, match=r"n_embd: missing.*n_layer: missing.*n_head: missing"):
        model_config_from_hf({"model_type": "gpt_bigcode", "vocab_size": 3})


def test_families_are_told_apart_by_kind_and_one_without_is_llama():
    assert parse_model_config(dump_config(MODEL), "x") == MODEL
    llama = LlamaConfig(
        vocab_size=9, hidden_size=8, intermediate_size=7, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=4
    )
    written_earlier = {key: value for key, value in dump_config(llama).items() if key != "kind"}
    assert parse_model_config(written_earlier, "x") == llama
    with pytest.raises(ConfigError, match="kind = 'gpt': must be one of 'llama', 'gpt_bigcode'"):
        parse_model_config({"kind": "gpt"}, "x")
    with pytest.raises(ConfigError, match="head_dim = 4: unknown key; known keys: activation, "):
        parse_model_config(dump_config(MODEL) | {"head_dim": 4}, "x")


CHANGES = {
    "kind": LlamaConfig(
        vocab_size=50, hidden_size=24, intermediate_size=28, num_layers=3, num_heads=6, num_kv_heads=1, head_dim=4
    ),
    "vocab_size": 51,
    "hidden_size": 36,
    "intermediate_size": 30,
    "num_layers": 4,
    "num_heads": 4,
    "activation": "gelu",
    "norm_epsilon": 0.1,
    "max_positions": 17,
    "tie_embeddings": False,
}


def test_every_field_has_a_case():
    assert list(CHANGES) == [field.name for field in dataclasses.fields(GPTBigCodeConfig)]


@pytest.mark.parametrize("field", CHANGES)
def test_every_config_field_is_live(field: str, params: Params):
    value = CHANGES[field]
    changed = value if field == "kind" else dataclasses.replace(MODEL, **{field: value})
    if abstract_params(MODEL) != abstract_params(changed):
        return
    outs = [logits(params, one, hidden_states(params, one, TOKENS, POSITIONS)) for one in (MODEL, changed)]
    assert np.abs(outs[0] - outs[1]).max() > 1e-4


def test_initial_values_are_those_of_gpt_2():
    wide = GPTBigCodeConfig(vocab_size=50, hidden_size=96, intermediate_size=128, num_layers=8, num_heads=6)
    fresh = init_params(wide, jax.random.key(0))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), fresh)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), abstract_params(wide))
    layers = fresh["layers"]
    for kernel in (layers["attn"]["qkv"]["kernel"], layers["mlp"]["up"]["kernel"], fresh["embed"]["positions"]):
        assert np.std(kernel) == pytest.approx(0.02, rel=0.03)
    for kernel in (layers["attn"]["o"]["kernel"], layers["mlp"]["down"]["kernel"]):
        assert np.std(kernel) == pytest.approx(0.02 / 16**0.5, rel=0.03)
    assert (layers["mlp_norm"]["scale"] == 1).all() and not layers["attn"]["qkv"]["bias"].any()


def test_layer_norm_is_computed_in_float32():
    x = jax.random.normal(jax.random.key(3), (5, 64), jnp.bfloat16) + 30
    scale, bias = (jax.random.uniform(jax.random.key(seed), (64,), jnp.bfloat16, 0.5, 1.5) for seed in (4, 5))
    wide, scale64, bias64 = (np.asarray(array, np.float64) for array in (x, scale, bias))
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale64 + bias64
    found = layer_norm(x, scale, bias, 1e-5)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=2**-8, atol=1e-6)


def test_packed_segments_count_positions_anew_and_do_not_see_each_other(params: Params):
    first, second = TOKENS[:1, :4], TOKENS[1:, :5]
    row = jnp.concatenate([first, second, jnp.zeros((1, 2), jnp.int32)], axis=1)
    segment_ids = jnp.array([[1] * 4 + [2] * 5 + [0] * 2])
    positions = jnp.array([[*range(4), *range(5), 0, 0]])
    packed = hidden_states(params, MODEL, row, positions, segment_ids)
    np.testing.assert_allclose(packed[:, :4], hidden_states(params, MODEL, first, POSITIONS[:1, :4]), atol=2e-5)
    np.testing.assert_allclose(packed[:, 4:9], hidden_states(params, MODEL, second, POSITIONS[:1, :5]), atol=2e-5)
    unrolled = hidden_states(params, MODEL, row, positions, segment_ids, scan_layers=False)
    np.testing.assert_allclose(unrolled, packed, atol=1e-5)


@pytest.mark.parametrize(
    ("tied", "weights_dtype", "cache_dtype", "least", "most"),
    [
        (True, "float32", "float32", 0, 1e-5),
        (False, "bfloat16", "bfloat16", 1e-4, 0.03),
        (True, "int8", "int8", 1e-4, 0.05),
    ],
)
def test_cached_passes_equal_the_definition_or_nearly(
    params: Params, tied: bool, weights_dtype: str, cache_dtype: str, least: float, most: float
):
    model = dataclasses.replace(MODEL, tie_embeddings=tied)
    weights = params if tied else params | {"head": {"kernel": params["embed"]["tokens"].T}}
    expected = hidden_states(weights, model, TOKENS, POSITIONS)
    step = jax.jit(functools.partial(cached_pass, config=model, weights_dtype=weights_dtype))
    cache, pieces = empty_cache(model, 2, 11, cache_dtype), []
    for start, end in ((0, 8), (8, 9), (9, 10), (10, 11)):
        piece, cache = step(
            weights, tokens=TOKENS[:, start:end], positions=POSITIONS[:, start:end], cache=cache
        )  # fmt: skip
        pieces.append(np.asarray(piece, np.float32))
    error = np.concatenate(pieces, axis=1) - expected
    assert least <= np.sqrt((error**2).mean() / (expected**2).mean()) < most


def test_what_all_heads_share_lies_whole_on_devices_that_split_heads():
    mesh = jax.sharding.AbstractMesh((1, 2, 2, 1, 2), AXES)
    places = param_shardings(mesh, param_specs(MODEL), max_whole_share=1)
    assert places["layers"]["attn"]["qkv"]["kernel"].shard_shape((3, 24, 8, 4)) == (3, 12, 8, 4)
    assert places["layers"]["attn"]["o"]["kernel"].shard_shape((3, 6, 4, 24)) == (3, 3, 4, 12)
    assert places["embed"]["positions"].shard_shape((16, 24)) == (16, 12)
    weights = weight_shardings(jax.eval_shape(lambda: _inference(init_params(MODEL, jax.random.key(0)))), mesh)
    assert weights.layers[0].qkv.kernel.shard_shape((24, 1, 8, 4)) == (12, 1, 8, 4)
    assert weights.layers[0].gate_up.kernel.shard_shape((24, 1, 28)) == (12, 1, 14)
    pools = init_pages(MODEL, 3, 4, jnp.float32)
    assert cache_shardings(pools, mesh).k[0].values.shard_shape((3, 1, 4, 4)) == (3, 1, 4, 4)


def _inference(params: Params):
    return inference_weights(params, MODEL, "float32")


def test_adapters_are_refused():
    with pytest.raises(UserError, match="lora: not for models of kind 'gpt_bigcode'"):
        lora_specs(MODEL, LoraConfig())


SETTING = """
import sys
sys.path += [".", "tests/golden"]
import json
import jax, numpy as np
from jaxwiz.model.gpt_bigcode_config import GPTBigCodeConfig
from jaxwiz.model.params import init_params, param_specs
from jaxwiz.sharding.mesh import MeshConfig, make_mesh

model = GPTBigCodeConfig(
    vocab_size=96, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, max_positions=64
)
params = jax.tree.map(lambda leaf: leaf * 4 + 0.01, init_params(model, jax.random.key(0)))
tokens = np.random.default_rng(0).integers(0, 96, (4, 32)).astype(np.int32)
"""
TRAINING = """
from jaxwiz.sharding.rules import batch_sharding, param_shardings
from jaxwiz.train.config import ComputeConfig
from jaxwiz.train.step import loss_and_gradient

segments = np.repeat([[1] * 20 + [2] * 12], 4, axis=0).astype(np.int32)
places = np.repeat([[*range(20), *range(12)]], 4, axis=0).astype(np.int32)
batch = {"tokens": tokens, "segment_ids": segments, "positions": places, "loss_mask": np.ones_like(tokens)}
compute = ComputeConfig(loss_chunk_positions=8)
loss, expected = jax.jit(lambda p, b: loss_and_gradient(p, b, model, compute))(params, batch)
for sizes in json.loads(sys.argv[1]):
    mesh = make_mesh(MeshConfig(**sizes))
    placed = jax.device_put(params, param_shardings(mesh, param_specs(model), max_whole_share=1))
    step = jax.jit(lambda p, b: loss_and_gradient(p, b, model, compute, mesh=mesh))
    here, found = step(placed, jax.device_put(batch, batch_sharding(mesh)))
    np.testing.assert_allclose(here.objective, loss.objective, rtol=1e-5)
    for (path, one), other in zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(found), strict=True):
        size = float(np.abs(one).max())
        assert size > 1e-4, path
        np.testing.assert_allclose(other, one, atol=1e-4 * size, err_msg=jax.tree_util.keystr(path))
"""
SAMPLING = """
from decoding import NoText
from jaxwiz.sample.engine import Engine
from jaxwiz.sample.requests import Request

requests = [Request(tokens[0, :length].tolist(), 8) for length in (5, 20, 9)]
alone = Engine(params, model, NoText(), slots=2).generate(requests)
split = Engine(params, model, NoText(), slots=2, mesh=make_mesh(MeshConfig(fsdp=4, tensor=2))).generate(requests)
assert [answer.tokens for answer in alone] == [answer.tokens for answer in split]
assert len({token for answer in alone for token in answer.tokens}) > 3
"""


def test_losses_and_gradients_are_the_same_on_a_mesh():
    run_on_eight_devices("-c", SETTING + TRAINING, json.dumps([{"fsdp": 2, "context": 2, "tensor": 2}]))


@pytest.mark.multiprocess
def test_losses_and_gradients_are_the_same_on_other_meshes():
    run_on_eight_devices("-c", SETTING + TRAINING, json.dumps([{"fsdp": 4, "tensor": 2}, {"fsdp": 2, "tensor": 4}]))


@pytest.mark.multiprocess
def test_greedy_tokens_are_the_same_on_a_mesh():
    run_on_eight_devices("-c", SETTING + SAMPLING)
