"""Arrays that are written chunk by chunk are Orbax's to restore, whole or in the slices that each device needs."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxwiz.checkpoint.arrays import ArrayLayout, ArrayWriter, damaged_chunks, open_array
from jaxwiz.checkpoint.weights import params_folder, save_weights
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import init_params


def _write(folder: Path, values: np.ndarray, chunks: tuple[int, ...]) -> None:
    """Writes `values` [L, ...] as layers/w, last layer first."""
    writer = ArrayWriter(folder, {"layers.w": ArrayLayout(values.shape, values.dtype, chunks)})
    for layer in reversed(range(len(values))):
        writer.write("layers.w", (layer, 0, 0), values[layer : layer + 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("chunks", [(1, 4, 6), (1, 3, 5), (1, 8, 12)])
def test_orbax_restores_what_was_written(
    tmp_path: Path, dtype: np.dtype, chunks: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    values = np.random.default_rng(0).normal(size=(3, 8, 12)).astype(dtype)
    _write(tmp_path / "params", values, chunks)  # (1, 3, 5): the last chunks stick out
    whole = jax.ShapeDtypeStruct(
        values.shape, values.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
    )
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "params", {"layers": {"w": whole}})["layers"]["w"]
    assert np.asarray(restored).tobytes() == values.tobytes()
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    part = open_array(tmp_path / "params", "layers.w")[1, 2:7, 3:].read().result()
    np.testing.assert_array_equal(part, values[1, 2:7, 3:])


def test_a_chunk_is_its_bytes_in_a_file_named_by_its_place(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    _write(tmp_path / "params", values, (1, 2, 2))
    folder = tmp_path / "params" / "layers.w"
    assert sorted(path.name for path in folder.iterdir()) == [".zarray", "0.0.0", "0.0.1", "0.1.0", "0.1.1"]
    assert np.frombuffer((folder / "0.0.1").read_bytes(), np.float32).tolist() == [2, 3, 6, 7]
    assert np.frombuffer((folder / "0.1.0").read_bytes(), np.float32).tolist() == [8, 9, 0, 0]  # padded
    assert json.loads((folder / ".zarray").read_text())["chunks"] == [1, 2, 2]


def test_a_lost_or_cut_chunk_is_an_error_never_zeros(tmp_path: Path) -> None:
    values = np.ones((2, 8, 8), np.float32)
    _write(tmp_path / "params", values, (1, 4, 8))
    lost = tmp_path / "params" / "layers.w" / "1.0.0"
    assert damaged_chunks(tmp_path / "params") == []
    for spoil in (lambda: lost.write_bytes(lost.read_bytes()[:-4]), lost.unlink):
        spoil()
        array = open_array(tmp_path / "params", "layers.w")
        np.testing.assert_array_equal(array[0].read().result(), values[0])
        with pytest.raises(ValueError, match=r"1\.0\.0|missing"):
            array[1].read().result()
        assert damaged_chunks(tmp_path / "params") == ["layers.w/1.0.0"]


def test_each_device_reads_its_own_slice(tmp_path: Path) -> None:
    values = np.arange(2 * 512 * 1024, dtype=np.float32).reshape(2, 512, 1024)
    _write(tmp_path / "params", values, (1, 64, 256))
    code = f"""
        import jax, numpy as np, orbax.checkpoint as ocp
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
        def bytes_read():
            return int(open("/proc/self/io").readline().split()[1])
        values = np.arange(2 * 512 * 1024, dtype=np.float32).reshape(2, 512, 1024)
        mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("fsdp", "tensor"))
        sharding = NamedSharding(mesh, P(None, "fsdp", "tensor"))
        with ocp.StandardCheckpointer() as checkpointer:
            target = {{"layers": {{"w": jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=sharding)}}}}
            before = bytes_read()
            restored = checkpointer.restore({str(tmp_path / "params")!r}, target)["layers"]["w"]
            read = bytes_read() - before
        for shard in restored.addressable_shards:
            assert shard.data.shape == (2, 128, 512)
            np.testing.assert_array_equal(shard.data, values[shard.index])
        print(read / values.nbytes)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 1 <= float(done.stdout) < 1.5  # all is read once, little more (imports, metadata)


def test_what_orbax_writes_is_read_layer_by_layer(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8
    )
    params = init_params(config, jax.random.key(0), jnp.bfloat16)
    (tmp_path / "tokenizer").mkdir()
    save_weights(tmp_path / "model", params, config, tmp_path / "tokenizer", {})
    stored = open_array(params_folder(tmp_path / "model"), "layers.mlp_norm.scale")
    assert stored.chunk_layout.read_chunk.shape == (1, 32)
    np.testing.assert_array_equal(stored[2].read().result(), params["layers"]["mlp_norm"]["scale"][2])
