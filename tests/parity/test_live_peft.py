"""Adapters that the peft package made compute the same here, and ours compute the same in the peft package."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding import logits_at

from jaxwiz.checkpoint import weights
from jaxwiz.checkpoint.adapter import load_adapter, save_adapter
from jaxwiz.config import parse_config
from jaxwiz.convert.config import ConvertConfig
from jaxwiz.convert.run import run
from jaxwiz.model.decoder import hidden_states, logits
from jaxwiz.model.lora import Adapters
from jaxwiz.model.lora_config import ALL_TARGETS, LoraConfig
from jaxwiz.model.lora_params import init_lora

torch = pytest.importorskip("torch", reason="needs the parity extra")
transformers = pytest.importorskip("transformers", reason="needs the parity extra")
peft = pytest.importorskip("peft", reason="needs the parity extra")

pytestmark = pytest.mark.parity

TOKENS = np.random.default_rng(0).integers(0, 400, 96)
LENGTH = len(TOKENS)

# What is trained, in both spellings.
KINDS: dict[str, LoraConfig] = {
    "all": LoraConfig(rank=6, alpha=12.0),
    "attention, stabilized": LoraConfig(rank=3, alpha=5.0, targets=("q", "v", "o"), rank_stabilized=True, dropout=0.1),
}


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_folder: Path) -> Path:
    """A random model of transformers with its tokenizer; every axis has its own size."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    config = transformers.LlamaConfig(
        vocab_size=400,
        hidden_size=96,
        intermediate_size=112,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=24,
        initializer_range=0.08,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_tokenizer_folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base_checkpoint(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("checkpoint"), {"kind": "hf", "path": str(base_folder)})


def convert(out: Path, source: dict[str, Any], **body: Any) -> Path:
    return run(parse_config({"out": str(out), "source": source, **body}, ConvertConfig, "test")) / "model"


def base_model(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def their_logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(TOKENS[None])).logits[0].numpy()


def unmerged_logits(checkpoint: Path, folder: Path) -> np.ndarray:
    params, config = weights.load_weights(checkpoint), weights.load_model_config(checkpoint)
    stored = load_adapter(folder, config)
    tokens, positions = jnp.asarray(TOKENS[None]), jnp.arange(LENGTH)[None]
    adapters = Adapters(jax.tree.map(jnp.asarray, stored.params), stored.config)
    hidden = hidden_states(params, config, tokens, positions, adapters=adapters)
    return np.asarray(logits(params, config, hidden)[0])


def assert_close(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    print(f"{what}: largest difference {np.abs(found - expected).max():.1e}")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_peft_compute_the_same_here(
    base_folder: Path, base_checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    lora = KINDS[kind]
    torch.manual_seed(1)
    theirs = peft.get_peft_model(
        base_model(base_folder),
        peft.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            use_rslora=lora.rank_stabilized,
            target_modules=[f"{target}_proj" for target in lora.targets],
            task_type="CAUSAL_LM",
        ),
    ).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    expected = their_logits(theirs)
    assert np.abs(expected - their_logits(base_model(base_folder))).max() > 0.1
    folder = tmp_path / "adapter"
    theirs.save_pretrained(folder)
    assert load_adapter(folder, weights.load_model_config(base_checkpoint)).config == lora
    assert_close(unmerged_logits(base_checkpoint, folder), expected, f"{kind}, unmerged")
    for base in (base_folder, base_checkpoint):
        merged = convert(tmp_path / base.name, {"kind": "peft", "path": str(folder), "base": str(base)})
        params, config = weights.load_weights(merged), weights.load_model_config(merged)
        assert_close(logits_at(params, config, TOKENS.tolist(), range(LENGTH)), expected, f"{kind}, merged")
    source = {"kind": "peft", "path": str(folder), "base": str(base_checkpoint)}
    exported = base_model(convert(tmp_path / "hf", source, target="hf"))
    assert_close(their_logits(exported), expected, f"{kind}, merged and exported")
    again = tmp_path / "again"
    stored = load_adapter(folder, weights.load_model_config(base_checkpoint))
    save_adapter(again, stored.params, stored.config, base_checkpoint, {})
    name = "adapter_model.safetensors"
    assert (again / name).read_bytes() == (folder / name).read_bytes()
    ours, original = (peft.PeftConfig.from_pretrained(path).to_dict() for path in (again, folder))
    differing = {key for key in original if ours[key] != original[key]}
    assert differing <= {"base_model_name_or_path", "peft_version"}, differing


@pytest.mark.parametrize("kind", KINDS)
def test_our_adapters_compute_the_same_in_peft(
    base_folder: Path, base_checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    config = weights.load_model_config(base_checkpoint)
    params = init_lora(config, KINDS[kind], jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    folder = tmp_path / "adapter"
    save_adapter(folder, jax.device_get(params), KINDS[kind], base_checkpoint, {})
    theirs = peft.PeftModel.from_pretrained(base_model(base_folder), folder).eval()
    names = {
        target for target in ALL_TARGETS if any(f"{target}_proj.lora_A" in n for n, _ in theirs.named_parameters())
    }
    assert names == set(KINDS[kind].targets)
    expected = their_logits(theirs)
    assert np.abs(expected - their_logits(base_model(base_folder))).max() > 0.1
    assert_close(unmerged_logits(base_checkpoint, folder), expected, f"{kind}, ours in peft")
    assert_close(their_logits(theirs.merge_and_unload()), expected, f"{kind}, merged by peft")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "use_dora = True: not supported"),
        ({"bias": "all"}, "bias = 'all': must be 'none'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save = \['lm_head'\]: not supported"),
        ({"rank_pattern": {"q_proj": 2}}, r"rank_pattern = \{'q_proj': 2\}: not supported"),
        ({"alpha_pattern": {"q_proj": 2}}, r"alpha_pattern = \{'q_proj': 2\}: not supported"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head.lora_A.weight: no adapter of the base has this name"),
        ({"layers_to_transform": [0]}, r"layers_to_transform = \[0\]: not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa': changes the base"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_peft_can_and_we_cannot_is_refused_by_name(
    base_folder: Path, base_checkpoint: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    settings = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | options
    model = peft.get_peft_model(base_model(base_folder), peft.LoraConfig(**settings))
    model.save_pretrained(tmp_path)
    with pytest.raises(weights.CheckpointError, match=message):
        load_adapter(tmp_path, weights.load_model_config(base_checkpoint))


def test_adapters_of_another_base_are_refused(base_checkpoint: Path, base_folder: Path, tmp_path: Path) -> None:
    """A merge into a base whose weights differ from those trained on is an error that names both."""
    lora = KINDS["all"]
    config = weights.load_model_config(base_checkpoint)
    params = jax.device_get(init_lora(config, lora, jax.random.key(0)))
    save_adapter(tmp_path / "adapter", params, lora, base_checkpoint, {})
    other = base_model(base_folder)
    with torch.no_grad():
        other.model.norm.weight.add_(1.0)
    other.save_pretrained(tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "other" / name).write_bytes((base_folder / name).read_bytes())
    with pytest.raises(ValueError, match=r"but the adapters in .* were trained on"):
        source = {"kind": "peft", "path": str(tmp_path / "adapter"), "base": str(tmp_path / "other")}
        convert(tmp_path / "out", source)
