"""Tiny models, one for each family of decoders and each scaling of rope, whose weights are drawn and never stored.

Each case is a `config.json`, and both sides read that: transformers its own way, jaxwiz its own. Every tensor is drawn
by NumPy from a seed made of its name. Shared by the golden script, the tests against its output and the live parity
tests; imports neither torch nor transformers.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from decoding import cached_pass, empty_cache

from jaxwiz.convert.names import rules_for, tensor_names
from jaxwiz.model.config import ModelConfig
from jaxwiz.model.decoder import hidden_states, logits
from jaxwiz.model.params import Params

GOLDEN = Path(__file__).parent / "decoder.npz"
LENGTHS = (8, 100)  # of the texts that the golden file covers

_SHAPE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
_GROUPED = {"num_key_value_heads": 2}
_YARN_EXTRAS = {"mscale": 0.7, "mscale_all_dim": 1.3, "beta_fast": 4, "beta_slow": 0.5, "truncate": False}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
_BIGCODE: dict[str, Any] = {
    "model_type": "gpt_bigcode",
    "vocab_size": 96,
    "n_embd": 48,
    "n_inner": 56,
    "n_layer": 2,
    "n_head": 6,
    "n_positions": 4096,
    "activation_function": "gelu",
    "multi_query": True,
    "layer_norm_epsilon": 1e-5,
}

# The context trained on is 64 tokens where frequencies are scaled, so that a text of 100 is beyond it.
CASES: dict[str, dict[str, Any]] = {
    "llama_1": _SHAPE | {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "rope_scaling": None},
    "llama_2_70b": _SHAPE | _GROUPED | {"pretraining_tp": 1, "attention_bias": False},
    "llama_3": _SHAPE | _GROUPED | {"rope_theta": 500_000.0, "max_position_embeddings": 8192},
    "llama_3_1": _SHAPE
    | _GROUPED
    | {
        "rope_theta": 500_000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "llama_3_2_tied": _SHAPE
    | _GROUPED
    | {
        "tie_word_embeddings": True,
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 32.0,
            "low_freq_factor": 1.5,
            "high_freq_factor": 3.0,
            "original_max_position_embeddings": 64,
        },
    },
    "code_llama_7b": _SHAPE | {"rope_theta": 1_000_000, "max_position_embeddings": 16_384},
    "code_llama_34b": _SHAPE | _GROUPED | {"rope_theta": 1_000_000, "max_position_embeddings": 16_384},
    "deepseek_coder": _SHAPE
    | {"rms_norm_eps": 1e-6, "rope_theta": 100_000, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "dynamic": _SHAPE | {"max_position_embeddings": 64, "rope_scaling": {"type": "dynamic", "factor": 8.0}},
    "yarn": _SHAPE | _GROUPED | {"rope_scaling": _YARN},
    "yarn_mscale": _SHAPE | {"rope_scaling": _YARN | _YARN_EXTRAS},
    "yarn_attention_factor": _SHAPE | {"rope_parameters": _YARN | {"rope_theta": 2e4, "attention_factor": 1.3}},
    "smollm2": _SHAPE
    | {"num_attention_heads": 3, "num_key_value_heads": 1, "rope_theta": 100_000, "tie_word_embeddings": True},
    "tinyllama": _SHAPE | {"num_key_value_heads": 3, "max_position_embeddings": 2048},
    "mistral": _SHAPE
    | _GROUPED
    | {"model_type": "mistral", "sliding_window": None, "rope_theta": 1e6, "attention_dropout": 0.0},
    "starcoder": _BIGCODE,
    "starcoder_untied": _BIGCODE
    | {
        "n_inner": None,
        "n_head": 4,
        "activation_function": "gelu_pytorch_tanh",
        "layer_norm_epsilon": 1e-2,
        "tie_word_embeddings": False,
    },
    "biased": _SHAPE | {"attention_bias": True, "mlp_bias": True, "head_dim": 12, "rms_norm_eps": 1e-2},
}


def tensors_of(config: ModelConfig) -> dict[str, np.ndarray]:
    """Returns the weights of a case by Hugging Face's names, float32."""
    drawn = {}
    for rule in rules_for(config):
        for name in tensor_names(rule, config):
            generator = np.random.default_rng(zlib.crc32(name.encode()))
            shape = rule.tensor_shape(config)
            is_scale = rule.param.endswith(".scale")
            values = generator.uniform(0.5, 1.5, shape) if is_scale else generator.normal(0, 0.08, shape)
            drawn[name] = values.astype(np.float32)
    return drawn


def params_of(tensors: Mapping[str, np.ndarray], config: ModelConfig) -> Params:
    """Returns Hugging Face's tensors (weights or their gradients) as a parameter tree."""
    params: Params = {}
    for rule in rules_for(config):
        parts = [rule.to_param(tensors[name], config) for name in tensor_names(rule, config)]
        *parents, last = rule.param.split(".")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = jnp.asarray(np.stack(parts) if rule.stacked else parts[0])
    return params


def text_of(config: ModelConfig, length: int) -> np.ndarray:
    """Returns tokens int32 [length]."""
    return np.random.default_rng(length).integers(0, config.vocab_size, length).astype(np.int32)


def kept_positions(length: int) -> np.ndarray:
    """Returns the positions whose logits the golden file keeps: 8, spread over the text, the last one included."""
    return np.linspace(length // 8 - 1, length - 1, 8).astype(int)


def gradient_digest(gradient: np.ndarray) -> tuple[float, float]:
    """Returns a gradient's norm and its sum against random signs: no element can be wrong and neither of them be."""
    signs = np.random.default_rng(gradient.size).choice((-1.0, 1.0), gradient.shape)
    return float(np.linalg.norm(gradient)), float(np.sum(signs * gradient))


def loss_and_logits(params: Params, config: ModelConfig, tokens: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Returns the mean next-token loss of a text [T], and its logits [T, V]."""
    positions = jnp.arange(len(tokens))[None]
    out = logits(params, config, hidden_states(params, config, jnp.asarray(tokens)[None], positions))[0]
    picked = jnp.take_along_axis(jax.nn.log_softmax(out[:-1]), jnp.asarray(tokens)[1:, None], axis=-1)
    return -picked.mean(), out


def gradients_and_logits(params: Params, config: ModelConfig, tokens: np.ndarray) -> tuple[Params, np.ndarray]:
    """Returns the gradient of a text's mean loss with respect to every parameter, and the logits [T, V]."""
    find = jax.jit(jax.grad(loss_and_logits, has_aux=True), static_argnums=1)
    gradients, out = find(params, config, tokens)
    return gradients, np.asarray(out)


def decoded_logits(params: Params, config: ModelConfig, tokens: np.ndarray, prompt: int) -> np.ndarray:
    """Returns the logits [T, V] of a text by the cache: a prefill of `prompt` tokens, then one token at a time."""
    length = len(tokens)

    @jax.jit
    def decode(params: Params, tokens: jax.Array) -> jax.Array:
        lengths = jnp.array([length])
        cache = empty_cache(config, 1, length + 3)
        first, cache = cached_pass(
            params, config, tokens[None, :prompt], jnp.arange(prompt)[None], cache, row_lengths=lengths
        )

        def step(cache: Any, place: jax.Array) -> tuple[Any, jax.Array]:
            hidden, cache = cached_pass(
                params, config, tokens[place][None, None], place[None, None], cache, row_lengths=lengths
            )
            return cache, hidden[0, 0]

        _, rest = jax.lax.scan(step, cache, jnp.arange(prompt, length))
        return logits(params, config, jnp.concatenate([first[0], rest]))

    return np.asarray(decode(params, jnp.asarray(tokens)))


def padded_logits(params: Params, config: ModelConfig, texts: list[np.ndarray], side: str) -> list[np.ndarray]:
    """Returns the logits of each text [T_i, V], computed in one batch of rows padded on the "left" or "right"."""
    width = max(map(len, texts)) + 2
    rows, places, segments = (np.zeros((len(texts), width), np.int32) for _ in range(3))
    spans = [slice(width - len(text), width) if side == "left" else slice(0, len(text)) for text in texts]
    for row, (text, span) in enumerate(zip(texts, spans, strict=True)):
        rows[row], rows[row, span] = 7, text  # 7: what stands in the padding must not matter
        places[row, span], segments[row, span] = np.arange(len(text)), 1
    hidden = jax.jit(hidden_states, static_argnums=1)(params, config, rows, places, segments)
    out = logits(params, config, hidden)
    return [np.asarray(out[row, span]) for row, span in enumerate(spans)]
