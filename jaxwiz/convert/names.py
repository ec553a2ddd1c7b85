"""The tables that join the names and layouts of Hugging Face, GGUF and jaxwiz, one for each family of decoders.

A layout reads "rows, columns -> parameter axes" in axis letters: Hugging Face keeps a linear layer's weight as
[output, input] with heads and head size merged, jaxwiz as [input, output] with one dimension for each. Query and key
rows are in Hugging Face's rotary order (first halves, then second halves) on both sides. GGUF tensors have the same
layouts, save that llama.cpp interleaves the rotary halves of queries and keys; `gguf_in.py` undoes that.

GPTBigCode's `c_attn` has the rows of all query heads, then the key's, then the value's, and its parameter has them so
too (M, see `axis_sizes`). It is not read from GGUF.

Everything else about tensors derives from these tables: what must be there, in which shape, and how it is turned.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from jaxwiz.files import UserError
from jaxwiz.model.config import ModelConfig, axis_sizes
from jaxwiz.model.gpt_bigcode_config import GPTBigCodeConfig

# Buffers that old Llama checkpoints carry though they follow from the config.
_DERIVED = re.compile(r"\.rotary_emb\.inv_freq$")


class ConversionError(UserError):
    """A model that cannot be converted; the message names file, faults and remedy."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one parameter is called and laid out.

    Attributes:
      param: dotted path in the parameter tree; below "layers" it is stacked over layers.
      hf: Hugging Face's name, with {layer} where there is one tensor a layer.
      gguf: llama.cpp's name, likewise; empty: the family is not read from GGUF.
      layout: "rows, columns -> parameter axes" of one layer's tensor, in axis letters.
      rotary: whether the rows are rotated by position (queries and keys).
    """

    param: str
    hf: str
    gguf: str
    layout: str
    rotary: bool = False

    @property
    def stacked(self) -> bool:
        """Whether there is one tensor a layer."""
        return "{layer}" in self.hf

    def tensor_shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Returns the shape of one tensor as Hugging Face keeps it."""
        sizes = axis_sizes(config)
        return tuple(math.prod(sizes[axis] for axis in group) for group in self._groups())

    def param_shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Returns the shape of the parameter, the layer axis included."""
        sizes = axis_sizes(config)
        shape = tuple(sizes[axis] for axis in self._param_axes())
        return (config.num_layers, *shape) if self.stacked else shape

    def to_param(self, tensor: np.ndarray, config: ModelConfig) -> np.ndarray:
        """Returns one layer's tensor in the parameter's layout, a view where that is possible."""
        sizes = axis_sizes(config)
        split = [axis for group in self._groups() for axis in group]
        order = [split.index(axis) for axis in self._param_axes()]
        return tensor.reshape([sizes[axis] for axis in split]).transpose(order)

    def to_tensor(self, param: np.ndarray) -> np.ndarray:
        """Returns one layer's parameter, or a part of it, as Hugging Face keeps it: the inverse of `to_param`.

        A view wherever that is possible; axes that were merged are as long as in `param`.
        """
        axes, groups = self._param_axes(), self._groups()
        order = [axes.index(axis) for group in groups for axis in group]
        sizes = [math.prod(param.shape[axes.index(axis)] for axis in group) for group in groups]
        return param.transpose(order).reshape(sizes)

    def rows_per_unit(self, config: ModelConfig) -> int:
        """Returns how many rows belong together along the axis that rows are cut by: H where rows are heads."""
        return math.prod(axis_sizes(config)[axis] for axis in self._groups()[0][1:])

    def rows_of_param(self, start: int, stop: int, config: ModelConfig) -> tuple[slice, ...]:
        """Returns where rows [start:stop), both multiples of `rows_per_unit`, lie in one layer's parameter."""
        unit, cut = self.rows_per_unit(config), self._groups()[0][0]
        rows = slice(start // unit, stop // unit)
        return tuple(rows if axis == cut else slice(0, axis_sizes(config)[axis]) for axis in self._param_axes())

    def _groups(self) -> list[list[str]]:
        return [group.split() for group in self.layout.split("->")[0].split(",")]

    def _param_axes(self) -> list[str]:
        return self.layout.split("->")[1].split()


_LAYER, _BLOCK = "model.layers.{layer}.", "blk.{layer}."
_EMBED = Rule("embed.tokens", "model.embed_tokens.weight", "token_embd.weight", "V, D -> V D")
_HEAD = Rule("head.kernel", "lm_head.weight", "output.weight", "V, D -> D V")


def _projection(param: str, hf: str, gguf: str, layout: str, *, rotary: bool = False) -> tuple[Rule, Rule]:
    """Returns the rules of a projection's kernel and of its bias, which is laid out as the kernel's rows are."""
    rows, _ = layout.split("->")[0].split(",")
    return (
        Rule(f"{param}.kernel", f"{_LAYER}{hf}.weight", f"{_BLOCK}{gguf}.weight", layout, rotary),
        Rule(f"{param}.bias", f"{_LAYER}{hf}.bias", f"{_BLOCK}{gguf}.bias", f"{rows} -> {rows}", rotary),
    )


LLAMA_RULES: tuple[Rule, ...] = (
    _EMBED,
    Rule("layers.attn_norm.scale", _LAYER + "input_layernorm.weight", _BLOCK + "attn_norm.weight", "D -> D"),
    *_projection("layers.attn.q", "self_attn.q_proj", "attn_q", "N H, D -> D N H", rotary=True),
    *_projection("layers.attn.k", "self_attn.k_proj", "attn_k", "K H, D -> D K H", rotary=True),
    *_projection("layers.attn.v", "self_attn.v_proj", "attn_v", "K H, D -> D K H"),
    *_projection("layers.attn.o", "self_attn.o_proj", "attn_output", "D, N H -> N H D"),
    Rule("layers.mlp_norm.scale", _LAYER + "post_attention_layernorm.weight", _BLOCK + "ffn_norm.weight", "D -> D"),
    *_projection("layers.mlp.gate", "mlp.gate_proj", "ffn_gate", "F, D -> D F"),
    *_projection("layers.mlp.up", "mlp.up_proj", "ffn_up", "F, D -> D F"),
    *_projection("layers.mlp.down", "mlp.down_proj", "ffn_down", "D, F -> F D"),
    Rule("norm.scale", "model.norm.weight", "output_norm.weight", "D -> D"),
    _HEAD,
)


_H = "transformer.h.{layer}."
_WTE = Rule("embed.tokens", "transformer.wte.weight", "", "V, D -> V D")


def _weight_and_bias(param: str, hf: str, weight: str, layout: str) -> tuple[Rule, Rule]:
    """Returns the rules of a projection or norm, `weight` being "kernel" or "scale", and of its bias."""
    rows = layout.split("->")[0].split(",")[0]
    return (
        Rule(f"{param}.{weight}", f"{hf}.weight", "", layout),
        Rule(f"{param}.bias", f"{hf}.bias", "", f"{rows} -> {rows}"),
    )


GPT_BIGCODE_RULES: tuple[Rule, ...] = (
    _WTE,
    Rule("embed.positions", "transformer.wpe.weight", "", "P, D -> P D"),
    *_weight_and_bias("layers.attn_norm", _H + "ln_1", "scale", "D -> D"),
    *_weight_and_bias("layers.attn.qkv", _H + "attn.c_attn", "kernel", "M H, D -> D M H"),
    *_weight_and_bias("layers.attn.o", _H + "attn.c_proj", "kernel", "D, N H -> N H D"),
    *_weight_and_bias("layers.mlp_norm", _H + "ln_2", "scale", "D -> D"),
    *_weight_and_bias("layers.mlp.up", _H + "mlp.c_fc", "kernel", "F, D -> D F"),
    *_weight_and_bias("layers.mlp.down", _H + "mlp.c_proj", "kernel", "D, F -> F D"),
    *_weight_and_bias("norm", "transformer.ln_f", "scale", "D -> D"),
    _HEAD,
)


def rules_for(config: ModelConfig) -> tuple[Rule, ...]:
    """Returns the rules of the parameters that a model of this config has: those of a head and of biases if it does."""
    if isinstance(config, GPTBigCodeConfig):
        return tuple(rule for rule in GPT_BIGCODE_RULES if not (rule is _HEAD and config.tie_embeddings))
    biased = {"attn": config.attention_bias, "mlp": config.mlp_bias}
    return tuple(
        rule
        for rule in LLAMA_RULES
        if not (rule is _HEAD and config.tie_embeddings)
        and not (rule.param.endswith(".bias") and not biased[rule.param.split(".")[1]])
    )


def tensor_names(rule: Rule, config: ModelConfig, spelling: str = "hf") -> list[str]:
    """Returns the names of a rule's tensors, one a layer or a single one; `spelling` is "hf" or "gguf"."""
    pattern: str = getattr(rule, spelling)
    return [pattern.format(layer=layer) for layer in range(config.num_layers)] if rule.stacked else [pattern]


def tied_copies(names: Iterable[str], config: ModelConfig) -> list[tuple[str, str]]:
    """Returns (copy, original) of tensors that a tied model may carry twice; a reader checks that they are equal."""
    embed = _WTE if isinstance(config, GPTBigCodeConfig) else _EMBED
    return [(_HEAD.hf, embed.hf)] if config.tie_embeddings and _HEAD.hf in set(names) else []


def require_tensors(
    shapes: Mapping[str, tuple[int, ...]], config: ModelConfig, where: str, faults: Iterable[str] = ()
) -> None:
    """Checks that the tensors of a model are all there, no others, each once and in its shape.

    Args:
      shapes: Hugging Face name -> shape of every tensor found; a name without a counterpart stands as it is.
      config: the model's shape.
      where: file or folder, for the message.
      faults: what else is wrong with single tensors, as lines for the message.

    Raises:
      ConversionError: with every fault.
    """
    found = [*_faults(shapes, config), *faults]
    if found:
        raise ConversionError(
            f"{where}: {len(found)} tensor(s) do not fit the model's config; get the files that belong together\n  "
            + "\n  ".join(found)
        )


def _faults(shapes: Mapping[str, tuple[int, ...]], config: ModelConfig) -> Iterator[str]:
    expected = {name: rule.tensor_shape(config) for rule in rules_for(config) for name in tensor_names(rule, config)}
    copies = {copy for copy, _ in tied_copies(shapes, config)}
    for name, shape in expected.items():
        if name not in shapes:
            yield f"{name}: missing, expected {list(shape)}"
        elif tuple(shapes[name]) != shape:
            yield f"{name}: has shape {list(shapes[name])}, the config asks for {list(shape)}"
    for name in sorted(shapes.keys() - expected.keys() - copies):
        if not _DERIVED.search(name):
            yield f"{name}: unknown, no parameter of this model has this name"
