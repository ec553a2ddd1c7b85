"""Parameters, bytes and floating-point operations, against published sizes."""

import jax.numpy as jnp
import pytest

from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.flops import device_peak_flops, forward_flops_per_token, train_flops_per_token
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.model.params import count_params, param_bytes


def llama(V: int, D: int, F: int, L: int, N: int, K: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=F, num_layers=L, num_heads=N, num_kv_heads=K, head_dim=128
    )


LLAMA_2_7B = llama(32_000, 4096, 11_008, 32, 32, 32)


@pytest.mark.parametrize(
    ("name", "config", "parameters"),
    [
        ("Llama 2 7B", LLAMA_2_7B, 6_738_415_616),
        ("Llama 2 13B", llama(32_000, 5120, 13_824, 40, 40, 40), 13_015_864_320),
        ("Code Llama 34B", llama(32_000, 8192, 22_016, 48, 64, 8), 33_743_970_304),
        ("Llama 2 70B", llama(32_000, 8192, 28_672, 80, 64, 8), 68_976_648_192),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, config: LlamaConfig, parameters: int):
    assert count_params(config) == parameters
    assert param_bytes(config, jnp.float32) == 4 * parameters
    assert param_bytes(config, jnp.bfloat16) == 2 * parameters


def test_flops_of_llama_2_7b():
    matmul_params = 6_738_415_616 - 32_000 * 4096 - 65 * 4096  # neither the look-up nor the norms multiply
    assert forward_flops_per_token(LLAMA_2_7B, 0) == 2 * matmul_params
    attention = 4 * 32 * 4096 * 1024.5  # half the square of 2,048 tokens
    assert train_flops_per_token(LLAMA_2_7B, 1024.5) == pytest.approx(6 * matmul_params + 3 * attention)
    # Adapters of rank 16 on queries and values, (4096 + 4096) x 16 in each of 32 layers: no gradient of the base.
    lora = LoraConfig(rank=16, targets=("q", "v"))
    adapters = 2 * 32 * 8192 * 16
    expected = 4 * matmul_params + 3 * attention + 6 * adapters
    assert train_flops_per_token(LLAMA_2_7B, 1024.5, lora) == pytest.approx(expected)


def test_peaks_are_known_for_accelerators_only():
    assert device_peak_flops("TPU v5 lite") == 197e12
    assert device_peak_flops("cpu") is None
