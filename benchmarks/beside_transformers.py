"""The same model in transformers, made from the same arrays, as what the sampler is measured beside."""

import os
import time
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig as TheirConfig
from transformers import LlamaForCausalLM

from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import Params


class Transformers:
    """A LlamaForCausalLM in float32 on the CPU, with all its cores."""

    def __init__(self, params: Params, config: LlamaConfig) -> None:
        """Copies the parameters; `config` is the shape that they have."""
        torch.set_num_threads(os.cpu_count() or 1)
        self._model = LlamaForCausalLM(TheirConfig(**config.to_hf()))
        missing, unexpected = self._model.load_state_dict(_state_dict(params, config), strict=False)
        tied = {"lm_head.weight"} if config.tie_embeddings else set()
        assert set(missing) <= tied, missing
        assert not unexpected, unexpected
        self._model.eval()

    def seconds(self, prompts: list[list[int]], new_tokens: int) -> float:
        """Returns the seconds that exactly `new_tokens` greedy tokens take for prompts of one length."""
        began = time.perf_counter()
        answers = self.answers(prompts, new_tokens, (), 0)
        assert all(len(answer) == new_tokens for answer in answers)
        return time.perf_counter() - began

    def answers(
        self, prompts: list[list[int]], most_new_tokens: int, end_ids: tuple[int, ...], pad_id: int
    ) -> list[list[int]]:
        """Returns the greedy answers of one static batch, each up to and with its end token."""
        width = max(map(len, prompts))
        ids = torch.tensor([[pad_id] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=most_new_tokens,
                eos_token_id=list(end_ids) or None, pad_token_id=pad_id,
            )  # fmt: skip
        return [_up_to_end(row.tolist(), end_ids) for row in out[:, width:]]


def _up_to_end(tokens: list[int], end_ids: tuple[int, ...]) -> list[int]:
    for place, token in enumerate(tokens):
        if token in end_ids:
            return tokens[: place + 1]
    return tokens


def _state_dict(params: Params, config: LlamaConfig) -> dict[str, Any]:
    layers = params["layers"]
    found = {
        "model.embed_tokens.weight": np.asarray(params["embed"]["tokens"]),
        "model.norm.weight": np.asarray(params["norm"]["scale"]),
    }
    if not config.tie_embeddings:
        found["lm_head.weight"] = np.asarray(params["head"]["kernel"]).T
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}"
        found[f"{prefix}.input_layernorm.weight"] = np.asarray(layers["attn_norm"]["scale"][layer])
        found[f"{prefix}.post_attention_layernorm.weight"] = np.asarray(layers["mlp_norm"]["scale"][layer])
        for block, where, names in (("attn", "self_attn", "qkvo"), ("mlp", "mlp", ("gate", "up", "down"))):
            for name in names:
                projection = layers[block][name]
                kernel = np.asarray(projection["kernel"][layer])
                rows = -1 if name == "o" else kernel.shape[0]
                kernel = kernel.reshape(rows, config.hidden_size) if name == "o" else kernel.reshape(rows, -1)
                found[f"{prefix}.{where}.{name}_proj.weight"] = kernel.T
                if "bias" in projection:
                    found[f"{prefix}.{where}.{name}_proj.bias"] = np.asarray(projection["bias"][layer]).reshape(-1)
    return {name: torch.from_numpy(np.array(value, np.float32)) for name, value in found.items()}
