"""Trained adapters on disk: a folder that the peft package loads, and that names the base it belongs to.

    adapter_config.json         rank, alpha, targets, as peft spells them
    adapter_model.safetensors   two matrices for each layer and target, as peft names and lays them out
    base.json                   the base's path and provenance (hash), and where the adapters came from; ours alone

Folders that peft made are read too, as long as they hold nothing but plain LoRA on the decoder's projections: whatever
else they ask for is refused by name.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from jaxwiz import __version__
from jaxwiz.checkpoint.weights import CheckpointError, read_header
from jaxwiz.files import atomic_folder
from jaxwiz.model.config import ModelConfig
from jaxwiz.model.lora import LAYOUTS
from jaxwiz.model.lora_config import ALL_TARGETS, LoraConfig
from jaxwiz.model.lora_params import lora_specs
from jaxwiz.model.params import Params

FORMAT = "jaxwiz.adapter.v1"
CONFIG_FILE, WEIGHTS_FILE, BASE_FILE = "adapter_config.json", "adapter_model.safetensors", "base.json"

# Target -> the module that Hugging Face's Llama has for it, within a layer.
MODULES: dict[str, str] = {
    **{target: f"self_attn.{target}_proj" for target in ("q", "k", "v", "o")},
    **{target: f"mlp.{target}_proj" for target in ("gate", "up", "down")},
}

# Keys of adapter_config.json that say how adapters were made or where, not what they compute.
_WITHOUT_EFFECT = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "init_lora_weights", "layers_pattern"),
    *("megatron_core", "peft_version", "qalora_group_size", "revision", "target_modules", "task_type"),
    *("ensure_weight_tying", "exclude_modules", "runtime_config"),
}
_UNDERSTOOD = {"peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "bias"}
# Ways to begin that change the base's weights, too: the base that was saved is not the one that they belong to.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclasses.dataclass(frozen=True)
class StoredAdapter:
    """What an adapter folder holds.

    Attributes:
      config: rank, alpha, targets.
      params: {target: {"a": [L, *in, R], "b": [L, R, *out]}}, NumPy arrays in the dtype that the file has.
      base: what base.json says of the base: its "path" and its "provenance"; empty where there is no base.json.
    """

    config: LoraConfig
    params: Params
    base: dict[str, Any]


def save_adapter(folder: Path, params: Params, config: LoraConfig, base: Path, provenance: dict[str, Any]) -> None:
    """Writes an adapter folder, replacing one that stands there only once the new one is complete.

    Args:
      folder: where it goes.
      params: the adapters, as `lora_specs` declares them.
      config: rank, alpha, targets.
      base: the checkpoint that they were trained on.
      provenance: where the adapters came from; JSON-able.
    """
    tensors = {
        f"{_module_path(layer, target)}.lora_{factor.upper()}.weight": _to_peft(factor, np.asarray(leaf)[layer])
        for target, factors in params.items()
        for factor, leaf in factors.items()
        for layer in range(len(leaf))
    }
    origin = {"path": str(base), "provenance": read_header(base).provenance}
    header = {"format": FORMAT, "jaxwiz": __version__, "base": origin, "provenance": provenance}
    with atomic_folder(folder) as partial:
        (partial / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(tensors, {"format": "pt"}))
        _write_json(partial / CONFIG_FILE, _peft_config(config, str(base)))
        _write_json(partial / BASE_FILE, header)


def load_adapter(folder: Path, model: ModelConfig) -> StoredAdapter:
    """Returns the adapters in a folder that `save_adapter` or peft wrote.

    Args:
      folder: adapter_config.json and adapter_model.safetensors.
      model: the shape of the base.

    Raises:
      CheckpointError: no such folder, an option of peft that is not supported, or tensors that do not fit the base.
    """
    data = _read_json(folder / CONFIG_FILE)
    path = folder / WEIGHTS_FILE
    try:
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except OSError:
        raise CheckpointError(
            f"{path}: cannot be read; an adapter folder holds {CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged or truncated safetensors ({error}); copy the file again") from None
    config = _lora_config(data, tensors, folder / CONFIG_FILE)
    expected = {
        f"{_module_path(layer, target)}.lora_{factor.upper()}.weight": (target, factor, layer, spec.shape[1:])
        for target, factors in lora_specs(model, config).items()
        for factor, spec in factors.items()
        for layer in range(model.num_layers)
    }
    shapes = {name: _peft_shape(target, factor, shape) for name, (target, factor, _, shape) in expected.items()}
    faults = [f"{name}: missing, expected {list(shape)}" for name, shape in shapes.items() if name not in tensors]
    faults += [f"{name}: no adapter of the base has this name" for name in sorted(tensors.keys() - shapes.keys())]
    faults += [
        f"{name}: has shape {list(tensors[name].shape)}, base and rank ask for {list(shape)}"
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if faults:
        raise CheckpointError(
            f"{path}: {len(faults)} tensor(s) do not fit; use the base that the adapters were trained on\n  "
            + "\n  ".join(faults)
        )
    params: Params = {target: {} for target in config.targets}
    for target in config.targets:
        for factor in ("a", "b"):
            layers = [
                tensors[name].T.reshape(shape)
                for name, (owner, kind, _, shape) in expected.items()
                if (owner, kind) == (target, factor)
            ]
            params[target][factor] = np.stack(layers)
    base = _read_json(folder / BASE_FILE).get("base", {}) if (folder / BASE_FILE).is_file() else {}
    return StoredAdapter(config, params, base)


def _module_path(layer: int, target: str) -> str:
    return f"base_model.model.model.layers.{layer}.{MODULES[target]}"


def _to_peft(factor: str, leaf: np.ndarray) -> np.ndarray:
    """Returns one layer's factor as peft keeps it, [output, input]: A [R, in], B [out, R]."""
    rank_last = factor == "a"
    flat = leaf.reshape(-1, leaf.shape[-1]) if rank_last else leaf.reshape(leaf.shape[0], -1)
    return np.ascontiguousarray(flat.T)


def _peft_shape(target: str, factor: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the shape that `_to_peft` gives one layer's factor."""
    split = len(LAYOUTS[target][0]) if factor == "a" else 1
    return math.prod(shape[split:]), math.prod(shape[:split])


def _peft_config(config: LoraConfig, base_path: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_path,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha.is_integer() else config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rank_stabilized,
        "target_modules": [MODULES[target].split(".")[1] for target in config.targets],
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
    }


def _lora_config(data: dict[str, Any], tensors: dict[str, np.ndarray], where: Path) -> LoraConfig:
    """Returns what adapter_config.json says; the targets are those that the tensors name."""
    faults = []
    if data.get("peft_type") != "LORA":
        faults.append(f"peft_type = {data.get('peft_type')!r}: must be 'LORA'")
    if data.get("bias", "none") != "none":
        faults.append(f"bias = {data['bias']!r}: must be 'none', trained biases are not supported")
    begin = data.get("init_lora_weights", True)
    if isinstance(begin, str) and begin.startswith(_CHANGES_BASE):
        faults.append(f"init_lora_weights = {begin!r}: changes the base's weights, which is not supported")
    faults += [
        f"{key} = {value!r}: not supported"
        for key, value in data.items()
        if value not in (None, False, "", [], {}) and key not in _WITHOUT_EFFECT | _UNDERSTOOD
    ]
    for key in ("r", "lora_alpha"):
        value = data.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            faults.append(f"{key} = {value!r}: must be a number above 0")
    targets = tuple(target for target in ALL_TARGETS if any(f".{MODULES[target]}.lora_A." in name for name in tensors))
    if not targets:
        faults.append(f"{WEIGHTS_FILE} holds no adapter of {', '.join(MODULES.values())}")
    if faults:
        raise CheckpointError(
            f"{where}: {'; '.join(faults)}. Merge the adapters with peft and convert the merged model instead"
        )
    return LoraConfig(
        rank=int(data["r"]),
        alpha=float(data["lora_alpha"]),
        targets=targets,
        dropout=float(data.get("lora_dropout", 0.0)),
        rank_stabilized=bool(data.get("use_rslora", False)),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(
            f"{path}: cannot be read; an adapter folder holds {CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); copy the file again") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: holds {type(data).__name__}, must be a JSON object; copy the file again")
    return data


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
