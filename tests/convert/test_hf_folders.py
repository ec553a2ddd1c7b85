"""Hugging Face folders to checkpoints and back: byte-equal tensors, unchanged tokenizer files, clear refusals."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jaxwiz.checkpoint.weights import CheckpointError, load_weights
from jaxwiz.config import parse_config
from jaxwiz.convert.config import ConvertConfig
from jaxwiz.convert.hf_in import open_hf_folder
from jaxwiz.convert.hf_out import write_hf_folder
from jaxwiz.convert.names import ConversionError
from jaxwiz.convert.run import check, run
from jaxwiz.convert.tensors import ModelFiles, ParamsReader
from jaxwiz.files import hash_tree
from jaxwiz.model.config import LlamaConfig


def _convert(out: Path, **body: Any) -> Path:
    config = parse_config({"out": str(out), **body}, ConvertConfig, "test")
    assert not [finding for finding in check(config) if finding.level == "error"]
    return run(config) / "model"


@pytest.fixture
def hf_folder(tmp_path: Path, tiny_model: ModelFiles) -> Path:
    folder = tmp_path / "hf"
    write_hf_folder(folder, tiny_model)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("sharded", [False, True])
def test_round_trip_is_exact(tmp_path: Path, tiny_model: ModelFiles, dtype: str, sharded: bool) -> None:
    first = tmp_path / "hf"
    write_hf_folder(first, tiny_model, dtype, shard_bytes=8_000 if sharded else 10**9)
    assert (len(list(first.glob("*.safetensors"))) > 1) == sharded == (first / "model.safetensors.index.json").exists()
    checkpoint = _convert(tmp_path / "to-checkpoint", source={"kind": "hf", "path": str(first)})
    second = _convert(tmp_path / "to-hf", source={"kind": "checkpoint", "path": str(checkpoint)}, target="hf")
    before = {name: t for path in first.glob("*.safetensors") for name, t in load_file(path).items()}
    after = load_file(second / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype == jnp.dtype(dtype)
        assert tensor.tobytes() == after[name].tobytes(), name
    others = {name: digest for name, digest in hash_tree(first).items() if "safetensors" not in name}
    assert others == {name: digest for name, digest in hash_tree(second).items() if "safetensors" not in name}
    with safe_open(second / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}  # transformers refuses other files
    assert json.loads((second / "config.json").read_text())["torch_dtype"] == dtype
    summary = (tmp_path / "to-hf" / "summary.txt").read_text()
    assert "hf (Hugging Face folder)" in summary and dtype in summary


def test_unknown_keys_of_config_json_survive(tmp_path: Path, hf_folder: Path) -> None:
    config = json.loads((hf_folder / "config.json").read_text())
    original = config | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "dtype": "float32", "x": [1]}
    del original["rope_theta"], original["torch_dtype"]
    (hf_folder / "config.json").write_text(json.dumps(original))
    checkpoint = _convert(tmp_path / "to-checkpoint", source={"kind": "hf", "path": str(hf_folder)})
    exported = _convert(tmp_path / "to-hf", source={"kind": "checkpoint", "path": str(checkpoint)}, target="hf")
    assert json.loads((exported / "config.json").read_text()) == original


def test_layers_that_differ_in_dtype_come_back_so(tmp_path: Path, hf_folder: Path) -> None:
    path = hf_folder / "model.safetensors"
    dtypes = {"model.layers.1.mlp.up_proj.weight": jnp.bfloat16, "model.layers.0.input_layernorm.weight": np.float16}
    dtypes |= {"model.layers.2.input_layernorm.weight": jnp.bfloat16, "lm_head.weight": jnp.bfloat16}
    before = {name: tensor.astype(dtypes.get(name, tensor.dtype)) for name, tensor in load_file(path).items()}
    save_file(before, path)
    config = json.loads((hf_folder / "config.json").read_text()) | {"torch_dtype": "bfloat16"}
    (hf_folder / "config.json").write_text(json.dumps(config))
    checkpoint = _convert(tmp_path / "to-checkpoint", source={"kind": "hf", "path": str(hf_folder)})
    exported = _convert(tmp_path / "to-hf", source={"kind": "checkpoint", "path": str(checkpoint)}, target="hf")
    after = load_file(exported / "model.safetensors")
    assert {name: (t.dtype, t.tobytes()) for name, t in after.items()} == {
        name: (t.dtype, t.tobytes()) for name, t in before.items()
    }
    assert json.loads((exported / "config.json").read_text()) == config
    stored = load_weights(checkpoint, dtype=None)
    assert stored["head"]["kernel"].dtype == jnp.bfloat16  # a leaf of one dtype is stored in it
    assert stored["layers"]["attn_norm"]["scale"].dtype == np.float32


def test_files_of_the_tokenizer_travel_unchanged(tmp_path: Path, hf_folder: Path) -> None:
    for name in ("chat_template.jinja", "special_tokens_map.json", "added_tokens.json", "generation_config.json"):
        (hf_folder / name).write_text('{"x":   [1]}\n')
    (hf_folder / "merges.txt").write_bytes(b"a b\r\n")
    (hf_folder / "modeling_other.py").write_text("raise SystemExit")
    checkpoint = _convert(tmp_path / "to-checkpoint", source={"kind": "hf", "path": str(hf_folder)})
    exported = _convert(tmp_path / "to-hf", source={"kind": "checkpoint", "path": str(checkpoint)}, target="hf")
    before, after = hash_tree(hf_folder), hash_tree(exported)
    assert before.pop("modeling_other.py")  # code stays behind
    assert after == before


def test_the_result_is_the_same_whatever_the_memory_allows(tmp_path: Path, hf_folder: Path) -> None:
    results = [
        hash_tree(_convert(tmp_path / str(limit), source={"kind": "hf", "path": str(hf_folder)}, max_host_gib=limit))
        for limit in (2, 64)
    ]
    assert results[0] == results[1]
    with pytest.raises(ConversionError, match=r"max_host_gib = 0\.01: too little"):
        run(parse_config(_body(tmp_path / "none", hf_folder, max_host_gib=0.01), ConvertConfig, "test"))
    assert not (tmp_path / "none" / "model").exists()


def test_every_fault_of_sharded_files_is_named_at_once(tmp_path: Path, tiny_model: ModelFiles) -> None:
    folder = tmp_path / "hf"
    write_hf_folder(folder, tiny_model, shard_bytes=40_000)
    index = folder / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    first, second, *_ = sorted(set(weight_map.values()))
    held = [name for name, file in weight_map.items() if file == second]
    integer, unlisted = held[0], held[1]
    assert weight_map["model.embed_tokens.weight"] == first
    weight_map["model.embed_tokens.weight"] = second
    del weight_map[unlisted]
    weight_map["model.layers.9.mlp.up_proj.weight"] = first
    index.write_text(json.dumps({"weight_map": weight_map}))
    tensors = load_file(folder / second)
    tensors[integer] = tensors[integer].astype(np.int8)
    tensors["lm_head.weight"] = np.ones((400, 20), np.float32)
    del tensors[held[2]]
    save_file(tensors, folder / second)
    with pytest.raises(ConversionError) as raised:
        run(parse_config(_body(tmp_path / "out", folder), ConvertConfig, "test"))
    last = weight_map["lm_head.weight"]
    assert sorted(line.strip().split(", expected")[0] for line in str(raised.value).splitlines()[1:]) == sorted(
        [
            f"{held[2]}: missing",
            f"{held[2]}: the index says {second}, found in no file",
            f"model.embed_tokens.weight: the index says {second}, found in {first}",
            f"lm_head.weight: found more than once, in {second} and {last}",
            f"{unlisted}: in {second}, but not in the index",
            f"{integer}: is I8, weights must be F32, F16 or BF16; dequantise quantised ones first",
            f"model.layers.9.mlp.up_proj.weight: the index says {first}, found in no file",
        ]
    )


def test_a_checkpoint_that_lost_a_file_is_one_clear_error(tmp_path: Path, hf_folder: Path) -> None:
    checkpoint = _convert(tmp_path / "to-checkpoint", source={"kind": "hf", "path": str(hf_folder)})
    body = {"out": str(tmp_path / "to-hf"), "source": {"kind": "checkpoint", "path": str(checkpoint)}, "target": "hf"}
    config = parse_config(body, ConvertConfig, "test")
    (checkpoint / "params" / "layers.mlp.up.kernel" / "1.0.0").unlink()
    with pytest.raises(ConversionError, match=r"layers\.mlp\.up\.kernel cannot be read"):
        run(config)
    with pytest.raises(CheckpointError, match=r"lost or cut short: layers\.mlp\.up\.kernel/1\.0\.0"):
        load_weights(checkpoint)
    shutil.rmtree(checkpoint / "params" / "layers.mlp.up.kernel")
    with pytest.raises(ConversionError, match=r"params/ is not what model\.json describes"):
        run(config)
    assert not list((tmp_path / "to-hf").iterdir())


def test_summary_tells_what_it_took(tmp_path: Path, hf_folder: Path) -> None:
    out = _convert(tmp_path / "out", source={"kind": "hf", "path": str(hf_folder)}).parent
    summary = (out / "summary.txt").read_text()
    for pattern in (
        r"written +checkpoint, 0\.\d+ GB float32",
        r"speed +[\d.]+ s, [\d.]+ GB/s",
        r"memory +\d\.\d\d GiB at most, 4 allowed",
        r"layers\.mlp\.up\S* +\[3, 20, 28\] +float32",
        r"template +unknown",
    ):
        assert re.search(pattern, summary), summary


def _body(out: Path, folder: Path, **body: Any) -> dict[str, Any]:
    return {"out": str(out), "source": {"kind": "hf", "path": str(folder)}, **body}


def test_export_in_another_dtype_rounds(tmp_path: Path, tiny_model: ModelFiles) -> None:
    write_hf_folder(tmp_path / "hf", tiny_model, "bfloat16")
    exported = load_file(tmp_path / "hf" / "model.safetensors")["model.embed_tokens.weight"]
    expected = tiny_model.params["embed"]["tokens"].astype(jnp.bfloat16)
    np.testing.assert_array_equal(exported, expected)


def test_float16_overflow_is_refused(tmp_path: Path, tiny_model: ModelFiles) -> None:
    params = jax.tree.map(np.array, tiny_model.params)
    params["layers"]["mlp"]["up"]["kernel"][1, 2, 3] = 1e6
    with pytest.raises(ConversionError, match=r"model.layers.1.mlp.up_proj.weight: values beyond 65,504"):
        write_hf_folder(
            tmp_path / "hf", dataclasses.replace(tiny_model, tensors=ParamsReader(params, tiny_model.config)), "float16"
        )
    assert not list(tmp_path.iterdir())


def test_random_model_depends_on_its_seed_alone(
    tmp_path: Path, tiny_config: LlamaConfig, tiny_tokenizer_folder: Path
) -> None:
    def embedding(out: str, seed: int) -> bytes:
        source = {
            "kind": "random",
            "model": dataclasses.asdict(tiny_config),
            "tokenizer": str(tiny_tokenizer_folder),
            "seed": seed,
        }
        folder = _convert(tmp_path / out, source=source, target="hf")
        return load_file(folder / "model.safetensors")["model.embed_tokens.weight"].tobytes()

    first = embedding("a", 0)
    assert first == embedding("b", 0)
    assert first != embedding("c", 1)


def _replace_weights(folder: Path, **changes: np.ndarray | None) -> None:
    path = folder / "model.safetensors"
    tensors = {**load_file(path), **{name.replace("__", "."): value for name, value in changes.items()}}
    save_file({name: value for name, value in tensors.items() if value is not None}, path)


def _pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _break_index(folder: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _duplicate(folder: Path) -> None:
    save_file({"model.norm.weight": np.ones(20, np.float32)}, folder / "more.safetensors")


def _tie_config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": True}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_pickle_only, "only pickled weights here (pytorch_model.bin)"),
        (_truncate, "damaged or truncated safetensors"),
        (_break_index, "names model-00001-of-00002.safetensors, not in the folder"),
        (_duplicate, "model.norm.weight: found more than once"),
        (_tie_config, "lm_head.weight differs from model.embed_tokens.weight"),
        (lambda folder: _replace_weights(folder, model__norm__weight=None), "model.norm.weight: missing"),
        (lambda folder: _replace_weights(folder, model__norm__weight=np.ones(20, np.int8)), "model.norm.weight: is I8"),
        (lambda folder: (folder / "config.json").unlink(), "config.json: cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not valid JSON"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "neither tokenizer.json nor tokenizer.model"),
    ],
)
def test_unusable_folder_is_one_clear_error(hf_folder: Path, tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(hf_folder)
    source = {"kind": "hf", "path": str(hf_folder)}
    config = parse_config({"out": str(tmp_path / "out"), "source": source}, ConvertConfig, "test")
    with pytest.raises(ConversionError) as raised:
        run(config)
    assert message in str(raised.value)
    assert not list((tmp_path / "out").iterdir())
    if spoil is not _tie_config:  # only this one is not seen in the headers
        assert message in next(finding.message for finding in check(config) if finding.level == "error")


def test_equal_copy_of_tied_head_is_accepted(hf_folder: Path, tmp_path: Path) -> None:
    _tie_config(hf_folder)
    embedding = load_file(hf_folder / "model.safetensors")["model.embed_tokens.weight"]
    _replace_weights(hf_folder, lm_head__weight=embedding)
    (tmp_path / "scratch").mkdir()
    model = open_hf_folder(hf_folder, tmp_path / "scratch", "test")
    assert "head" not in model.params


def test_tokenizer_larger_than_the_embedding_is_refused(hf_folder: Path, tmp_path: Path) -> None:
    spec = json.loads((hf_folder / "tokenizer.json").read_text())
    spec["added_tokens"].append(spec["added_tokens"][0] | {"id": 400, "content": "<extra>"})
    spec["model"]["vocab"]["<extra>"] = 400
    (hf_folder / "tokenizer.json").write_text(json.dumps(spec))
    source = {"kind": "hf", "path": str(hf_folder)}
    with pytest.raises(ConversionError, match="401 tokens, but the embedding only 400 rows"):
        run(parse_config({"out": str(tmp_path / "out"), "source": source}, ConvertConfig, "test"))


def test_repeated_run_replaces_the_result_whole(hf_folder: Path, tmp_path: Path) -> None:
    source = {"kind": "hf", "path": str(hf_folder)}
    model = _convert(tmp_path / "out", source=source)
    shutil.rmtree(model / "params")  # as after a disk fault
    again = _convert(tmp_path / "out", source=source)
    exported = _convert(tmp_path / "to-hf", source={"kind": "checkpoint", "path": str(again)}, target="hf")
    assert (exported / "model.safetensors").read_bytes() == (hf_folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"source": {"kind": "checkpoint", "path": "x"}}, "the source already is one"),
        ({"source": {"kind": "hf", "path": "x"}, "dtype": "float16"}, "only for target: hf"),
    ],
)
def test_contradictory_config_is_refused(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_config({"out": "out", **body}, ConvertConfig, "test")
