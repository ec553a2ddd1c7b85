"""Weights move in blocks that cover every row once, are turned exactly, and stay within the memory that is allowed."""

import dataclasses
import re
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.convert import flow as flow_module
from jaxwiz.convert.flow import Flow, blocks_of, copy_turned, count_nonfinite, plan_flow, rows_per_block
from jaxwiz.convert.names import LLAMA_RULES, ConversionError, rules_for, tensor_names
from jaxwiz.convert.tensors import ModelFiles
from jaxwiz.model.config import LlamaConfig


@pytest.mark.parametrize("block_bytes", [1, 300, 2_000, 1 << 20])
def test_blocks_cover_every_row_once_and_whole_heads(
    tiny_config: LlamaConfig, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_module, "BLOCK_BYTES", block_bytes)
    names = [name for rule in rules_for(tiny_config) for name in tensor_names(rule, tiny_config)]
    blocks = blocks_of([*names, "model.layers.0.self_attn.rotary_emb.inv_freq"], tiny_config)
    assert list(dict.fromkeys(block.name for block in blocks)) == names
    for name in names:
        parts = [block for block in blocks if block.name == name]
        rows, unit = parts[0].rule.tensor_shape(tiny_config)[0], parts[0].rule.rows_per_unit(tiny_config)
        assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
        assert parts[-1].stop == rows
        assert all(part.start % unit == part.stop % unit == 0 for part in parts)
        width = 4 * np.prod(parts[0].rule.tensor_shape(tiny_config)[1:])
        assert all((part.stop - part.start) * width <= max(block_bytes, unit * width) for part in parts)


def test_rows_of_a_tensor_are_where_the_table_says(tiny_config: LlamaConfig) -> None:
    for rule in LLAMA_RULES:
        shape, unit = rule.tensor_shape(tiny_config), rule.rows_per_unit(tiny_config)
        tensor = np.arange(np.prod(shape)).reshape(shape)
        start, stop = unit, min(shape[0], 3 * unit)
        part = rule.to_param(tensor, tiny_config)[rule.rows_of_param(start, stop, tiny_config)]
        np.testing.assert_array_equal(rule.to_tensor(part), tensor[start:stop])


@pytest.mark.parametrize("shape", [(1, 1), (40, 7), (7, 40), (16, 33)])
@pytest.mark.parametrize(("turned", "dtype"), [(False, np.float32), (True, np.float32), (True, jnp.bfloat16)])
def test_turned_copies_are_exact(shape: tuple[int, int], turned: bool, dtype: np.dtype) -> None:
    source = np.random.default_rng(0).normal(size=shape).astype(dtype)
    target = np.zeros(shape[::-1] if turned else shape, dtype)
    copy_turned(target.T if turned else target, source)
    np.testing.assert_array_equal(target.T if turned else target, source)
    back = np.zeros(shape, dtype)
    copy_turned(back, target.T if turned else target)
    np.testing.assert_array_equal(back, source)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
def test_nonfinite_values_are_counted(dtype: np.dtype) -> None:
    largest = jnp.finfo(dtype).max
    values = np.array([[0, -0.0, 1, largest, -largest], [np.nan, -np.nan, np.inf, -np.inf, 1e-8]]).astype(dtype)
    assert count_nonfinite(values) == 4
    assert count_nonfinite(values.T) == 4
    assert count_nonfinite(values[:1]) == 0


def test_memory_limit_that_cannot_be_met_names_the_least_that_can(tiny_config: LlamaConfig) -> None:
    with pytest.raises(ConversionError, match=r"max_host_gib = 0\.1: too little, this conversion needs") as raised:
        plan_flow(tiny_config, 0.1, allow_nonfinite=False)
    least = float(re.search(r"needs ([\d.]+);", str(raised.value)).group(1))
    assert plan_flow(tiny_config, least + 0.1, allow_nonfinite=False).threads == 1  # + 0.1: this process may grow
    with pytest.raises(ConversionError):
        plan_flow(tiny_config, least - 0.2, allow_nonfinite=False)
    with pytest.raises(ConversionError, match=r"needs 1\d\d"):
        plan_flow(tiny_config, 4.0, allow_nonfinite=False, extra_bytes=100 << 30)


def test_larger_rows_need_more_memory(tiny_config: LlamaConfig) -> None:
    wide = dataclasses.replace(tiny_config, head_dim=1 << 23)
    assert rows_per_block(LLAMA_RULES[2], wide) == 1 << 23  # one head is never split
    assert plan_flow(tiny_config, 3, allow_nonfinite=False).threads >= 1
    with pytest.raises(ConversionError, match="too little"):
        plan_flow(wide, 3, allow_nonfinite=False)


def test_blocks_in_work_never_exceed_the_threads(tiny_model: ModelFiles) -> None:
    blocks = blocks_of(tiny_model.tensors.shapes, tiny_model.config)
    lock, running, most = threading.Lock(), 0, 0
    both = threading.Barrier(2)

    def move(block: object, rows: np.ndarray) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if block is blocks[0] or block is blocks[1]:
            both.wait(timeout=30)  # two do run together
        with lock:
            running -= 1

    Flow(threads=2).run("test", tiny_model.tensors, blocks, move)
    assert most == 2


def test_a_fault_in_one_block_stops_the_others(tiny_model: ModelFiles) -> None:
    blocks = blocks_of(tiny_model.tensors.shapes, tiny_model.config)
    moved = []

    def move(block: object, rows: np.ndarray) -> None:
        moved.append(block)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        Flow().run("test", tiny_model.tensors, blocks, move)
    assert len(moved) == 1
