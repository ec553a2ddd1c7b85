"""Every tensor type of GGUF that models come in, against its definition, one number at a time.

The blocks are random bytes under sane scales, so that every bit of the packed formats counts. The formulas are those of
llama.cpp's `dequantize_row_*`, written for a single block.
"""

import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.convert.gguf_in import GgufReader
from jaxwiz.convert.names import ConversionError

# D = F = 256: one block of the K types a row. Four query heads of 64, two kv heads.
SHAPES = {
    "token_embd.weight": (8, 256),
    "output_norm.weight": (256,),
    "blk.0.attn_norm.weight": (256,),
    "blk.0.attn_q.weight": (256, 256),
    "blk.0.attn_k.weight": (128, 256),
    "blk.0.attn_v.weight": (128, 256),
    "blk.0.attn_output.weight": (256, 256),
    "blk.0.ffn_norm.weight": (256,),
    "blk.0.ffn_gate.weight": (256, 256),
    "blk.0.ffn_up.weight": (256, 256),
    "blk.0.ffn_down.weight": (256, 256),
}


def half(data: bytes, place: int) -> float:
    return float(struct.unpack_from("<e", data, place)[0])


def f32(data: bytes) -> list[float]:
    return list(struct.unpack("<f", data))


def f16(data: bytes) -> list[float]:
    return list(struct.unpack("<e", data))


def bf16(data: bytes) -> list[float]:
    return list(struct.unpack("<f", b"\0\0" + data))  # the upper half of a float32


def q8_0(data: bytes) -> list[float]:
    return [half(data, 0) * value for value in struct.unpack_from("<32b", data, 2)]


def q4_0(data: bytes) -> list[float]:
    packed = data[2:]
    return [half(data, 0) * (number - 8) for number in [byte & 15 for byte in packed] + [byte >> 4 for byte in packed]]


def q4_1(data: bytes) -> list[float]:
    packed = data[4:]
    numbers = [byte & 15 for byte in packed] + [byte >> 4 for byte in packed]
    return [half(data, 0) * number + half(data, 2) for number in numbers]


def q4_k(data: bytes) -> list[float]:
    scales, packed, values = data[4:16], data[16:], []
    for part in range(8):
        if part < 4:
            scale, least = scales[part] & 63, scales[part + 4] & 63
        else:
            scale = (scales[part + 4] & 15) | (scales[part - 4] >> 6 << 4)
            least = (scales[part + 4] >> 4) | (scales[part] >> 6 << 4)
        for byte in packed[part // 2 * 32 : part // 2 * 32 + 32]:
            number = byte >> 4 if part % 2 else byte & 15
            values.append(half(data, 0) * scale * number - half(data, 2) * least)
    return values


def q6_k(data: bytes) -> list[float]:
    low, high, scales = data[:128], data[128:192], struct.unpack_from("<16b", data, 192)
    values = [0.0] * 256
    for part in range(2):
        for i in range(32):
            for quarter in range(4):
                byte = low[64 * part + i + 32 * (quarter % 2)]
                bits = (byte >> 4 if quarter >= 2 else byte & 15) | ((high[32 * part + i] >> (2 * quarter)) & 3) << 4
                scale = scales[8 * part + i // 16 + 2 * quarter]
                values[128 * part + 32 * quarter + i] = half(data, 208) * scale * (bits - 32)
    return values


# Type -> (bytes of a block, places of its half-precision scales, formula of one block).
TYPES: dict[str, tuple[int, tuple[int, ...], Callable[[bytes], list[float]]]] = {
    "F32": (4, (), f32),
    "F16": (2, (), f16),
    "BF16": (2, (), bf16),
    "Q8_0": (34, (0,), q8_0),
    "Q4_0": (18, (0,), q4_0),
    "Q4_1": (20, (0, 2), q4_1),
    "Q4_K": (144, (0, 2), q4_k),
    "Q6_K": (210, (208,), q6_k),
}
PLAIN = {"F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}


def random_blocks(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Returns the bytes of a tensor, [rows, bytes of a row]."""
    if kind in PLAIN:
        return random.normal(size=shape).astype(PLAIN[kind]).view(np.uint8).reshape(shape[0], -1)
    size, scale_places, _ = TYPES[kind]
    per_row = shape[1] // (256 if kind.endswith("K") else 32)
    blocks = random.integers(0, 256, (shape[0], per_row, size), np.uint8)
    for place in scale_places:
        scales = random.uniform(-0.01, 0.01, (shape[0], per_row, 1)).astype(np.float16)
        blocks[:, :, place : place + 2] = scales.view(np.uint8)
    return blocks.reshape(shape[0], -1)


def write(path: Path, kind: str) -> dict[str, np.ndarray]:
    """Writes a model whose matrices are of one type, and returns the bytes of its tensors."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    numbers = {"context_length": 64, "embedding_length": 256, "block_count": 1, "feed_forward_length": 256}
    for name, value in {**numbers, "attention.head_count": 4, "attention.head_count_kv": 2}.items():
        writer.add_uint32(f"llama.{name}", value)
    tensors = {}
    for name, shape in SHAPES.items():
        if len(shape) == 1:
            writer.add_tensor(name, random.normal(size=shape).astype(np.float32))
        else:
            tensors[name] = random_blocks(kind, shape, random)
            writer.add_tensor(name, tensors[name], raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def by_definition(kind: str, rows: np.ndarray) -> np.ndarray:
    size, _, formula = TYPES[kind]
    values = [[formula(row[i : i + size].tobytes()) for i in range(0, len(row), size)] for row in rows]
    return np.array(values).reshape(len(rows), -1)


@pytest.mark.parametrize("kind", TYPES)
def test_values_are_those_of_the_definition(tmp_path: Path, kind: str) -> None:
    written = write(tmp_path / "model.gguf", kind)
    reader = GgufReader(tmp_path / "model.gguf")
    down = reader.read_rows("model.layers.0.mlp.down_proj.weight", 0, 256)
    expected = by_definition(kind, written["blk.0.ffn_down.weight"][:16])
    assert down.shape == (256, 256)
    assert down.dtype == reader.dtypes["model.layers.0.mlp.down_proj.weight"] == PLAIN.get(kind, np.float32)
    np.testing.assert_allclose(down[:16].astype(np.float64), expected, rtol=2e-6, atol=1e-6)
    assert len(np.unique(down.astype(np.float32))) > 10
    # The first key head: rows 0, 2, 4, ... in the file are its first half.
    keys = reader.read_rows("model.layers.0.self_attn.k_proj.weight", 0, 64).astype(np.float64)
    expected = by_definition(kind, written["blk.0.attn_k.weight"][:64])
    np.testing.assert_allclose(keys, np.concatenate([expected[0::2], expected[1::2]]), rtol=2e-6, atol=1e-6)


def test_a_type_of_whole_numbers_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((2, 2), np.int8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ConversionError, match="holds tensors of type I8"):
        GgufReader(path)


def test_damaged_bytes_are_a_model_or_one_clear_error(tmp_path: Path) -> None:
    """Bytes of the file's head, one at a time, become others: never another exception, never an endless loop."""
    path = tmp_path / "model.gguf"
    write(path, "Q4_0")
    whole = path.read_bytes()
    refused = 0
    for place in range(0, 1600, 5):
        for value in (0, 1, 0x7F, 0xFF):
            with open(path, "r+b") as file:
                file.seek(place)
                file.write(bytes([value]))
                file.flush()
                try:
                    GgufReader(path)
                except ConversionError as error:
                    refused += 1
                    assert str(path) in str(error)
                file.seek(place)
                file.write(whole[place : place + 1])
    assert path.read_bytes() == whole
    assert refused > 300
