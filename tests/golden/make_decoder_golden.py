"""Writes decoder.npz: what transformers computes for the models of decoder_cases.py. Run in the parity environment:

.venv-parity/bin/python tests/golden/make_decoder_golden.py
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers
from decoder_cases import CASES, GOLDEN, LENGTHS, gradient_digest, kept_positions, tensors_of, text_of

from jaxwiz.model.config import model_config_from_hf


def reference_model(data: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Any:
    """Returns transformers' model of a config.json with these weights, float32."""
    values = {key: value for key, value in data.items() if key != "model_type"}
    config = transformers.AutoConfig.for_model(data["model_type"], **values)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    missing, unexpected = model.load_state_dict({n: torch.tensor(t) for n, t in tensors.items()}, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    model.tie_weights()
    return model


def reference_run(model: Any, tokens: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns the logits [T, V] of a text, and the gradients of its mean next-token loss by the tensors' names."""
    model.zero_grad()
    ids = torch.tensor(tokens[None].astype(np.int64))
    with torch.no_grad():
        model(ids[:, :1])  # dynamic frequencies stay those of the longest text so far until a short one resets them
    out = model(ids).logits[0]
    torch.nn.functional.cross_entropy(out[:-1], ids[0, 1:]).backward()
    gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}
    return out.detach().numpy(), gradients


def main() -> None:
    """Writes the golden file."""
    kept: dict[str, np.ndarray] = {}
    for name, data in CASES.items():
        config = model_config_from_hf(data)
        model = reference_model(data, tensors_of(config))
        for length in LENGTHS:
            logits, gradients = reference_run(model, text_of(config, length))
            kept[f"{name}/{length}"] = logits[kept_positions(length)]
            digests = [gradient_digest(gradients[tensor]) for tensor in sorted(gradients)]
            kept[f"{name}/{length}/gradients"] = np.array(digests, np.float32)
    np.savez_compressed(GOLDEN, **kept)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size:,} bytes, transformers {transformers.__version__}")


if __name__ == "__main__":
    main()
