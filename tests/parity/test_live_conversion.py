"""Conversion as PyTorch and transformers see it: pickled files that torch wrote, vocabularies of another size."""

import json
from pathlib import Path
from typing import Any

import pytest
from smollm2_cases import GREEDY_TOKENS, fetch_smollm2

from jaxwiz.config import parse_config
from jaxwiz.convert.config import ConvertConfig
from jaxwiz.convert.names import ConversionError
from jaxwiz.convert.run import run
from jaxwiz.text.tokenizer import load_tokenizer

torch = pytest.importorskip("torch", reason="needs the parity extra")
transformers = pytest.importorskip("transformers", reason="needs the parity extra")

pytestmark = pytest.mark.parity

PROMPT = [5, 17, 200, 33]
GREEDY = Path(__file__).parents[1] / "golden" / "smollm2.json"


def _convert(out: Path, **body: Any) -> Path:
    return run(parse_config({"out": str(out), **body}, ConvertConfig, "test")) / "model"


def _export(out: Path, checkpoint: Path) -> Path:
    return _convert(out, source={"kind": "checkpoint", "path": str(checkpoint)}, target="hf")


@pytest.fixture
def hf_folder(tmp_path: Path, tiny_tokenizer_folder: Path) -> Path:
    """A random bfloat16 model in several shards, with more rows than its tokenizer has tokens."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=400,
        hidden_size=96,
        intermediate_size=112,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=24,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "hf", max_shard_size="200KB")
    transformers.AutoTokenizer.from_pretrained(tiny_tokenizer_folder).save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def _generated(folder: Path) -> list[int]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    return model.generate(torch.tensor([PROMPT]), max_new_tokens=24, do_sample=False)[0].tolist()


def _weights(folder: Path) -> dict[str, Any]:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()


def _require_equal(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype
        assert torch.equal(tensor, second[name]), name


def test_shards_of_transformers_come_back_and_generate_alike(tmp_path: Path, hf_folder: Path) -> None:
    assert len(list(hf_folder.glob("*.safetensors"))) > 1
    checkpoint = _convert(tmp_path / "c", source={"kind": "hf", "path": str(hf_folder)})
    exported = _convert(
        tmp_path / "e", source={"kind": "checkpoint", "path": str(checkpoint)}, target="hf", shard_gib=2e-4
    )
    assert len(list(exported.glob("*.safetensors"))) > 1
    _require_equal(_weights(hf_folder), _weights(exported))
    assert _generated(exported) == _generated(hf_folder)


def test_pickled_shards_of_torch_are_read(tmp_path: Path, hf_folder: Path) -> None:
    weights = _weights(hf_folder)
    for path in (*hf_folder.glob("*.safetensors"), hf_folder / "model.safetensors.index.json"):
        path.unlink()
    torch.save(weights, hf_folder / "pytorch_model.bin")
    source = {"kind": "hf", "path": str(hf_folder), "allow_pickle": True}
    exported = _export(tmp_path / "e", _convert(tmp_path / "c", source=source))
    _require_equal(weights, _weights(exported))


def test_padding_is_gone_from_an_export(tmp_path: Path, hf_folder: Path) -> None:
    source = {"kind": "hf", "path": str(hf_folder)}
    padded = _convert(tmp_path / "c", source=source, vocabulary={"pad_to_multiple": 256})
    exported = _export(tmp_path / "e", padded)
    _require_equal(_weights(hf_folder), _weights(exported))
    assert transformers.AutoConfig.from_pretrained(exported).vocab_size == 400


def test_added_tokens_are_known_to_transformers(tmp_path: Path, hf_folder: Path) -> None:
    known = load_tokenizer(hf_folder).vocab_size
    added = ["[PAD]", *(f"<extra {number}>" for number in range(400 - known))]
    vocabulary = {"add_tokens": added, "pad_token": "[PAD]"}
    checkpoint = _convert(tmp_path / "c", source={"kind": "hf", "path": str(hf_folder)}, vocabulary=vocabulary)
    exported = _export(tmp_path / "e", checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[PAD]", known)
    assert tokenizer.convert_tokens_to_ids(added) == list(range(known, 401))
    assert tokenizer("def [PAD]").input_ids[-1] == known
    before, after = _weights(hf_folder), _weights(exported)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(after[name][:known], before[name][:known])
        mean = before[name][:known].float().mean(dim=0).to(torch.bfloat16)
        assert after[name].shape[0] == 401
        torch.testing.assert_close(after[name][known:], mean.expand(401 - known, -1), rtol=1e-2, atol=1e-6)
    assert _generated(exported)[: len(PROMPT)] == PROMPT


def test_exported_default_model_generates_what_its_gguf_does(tmp_path: Path) -> None:
    try:
        path = fetch_smollm2()
    except ConversionError as error:
        pytest.skip(f"the default model can't be had here: {error}")
    checkpoint = _convert(tmp_path / "c", source={"kind": "gguf", "path": str(path)})
    model = transformers.AutoModelForCausalLM.from_pretrained(_export(tmp_path / "e", checkpoint)).eval()
    model.generation_config.eos_token_id = None
    for prompt in json.loads(GREEDY.read_text())["prompts"][:3]:  # made by transformers from the GGUF itself
        row = torch.tensor([prompt["tokens"]])
        done = model.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=GREEDY_TOKENS, do_sample=False)
        assert done[0, len(prompt["tokens"]) :].tolist() == prompt["greedy"]
