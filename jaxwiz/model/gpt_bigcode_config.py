"""The shape of a GPTBigCode decoder, read from and written to Hugging Face's `config.json`.

StarCoder is of this family, and so is WizardCoder-15B. As in `model/config.py` every field is live, and what the
decoder does not do is refused by name, dropout alone excepted: StarCoder's own config.json asks for it, it has no part
in what a trained model computes, and this decoder trains without it.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.files import UserError
from jaxwiz.model.hf_config import build, key_faults, refuse

Size = Annotated[int, Field(gt=0)]

# config.json keys whose other values would change the computation, with the values that this decoder implements.
_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt_bigcode",),
    "multi_query": (True,),
    "scale_attn_weights": (True,),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
}

# Names that transformers has for the two forms of GELU.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}

# Field -> key of config.json; `GPTBigCodeConfig` of transformers keeps GPT-2's names.
_HF_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_layers": "n_layer",
    "num_heads": "n_head",
    "activation": "activation_function",
    "norm_epsilon": "layer_norm_epsilon",
    "max_positions": "n_positions",
    "tie_embeddings": "tie_word_embeddings",
}
_NEEDED = ("vocab_size", "n_embd", "n_layer", "n_head")
_DEFAULTS: dict[str, Any] = {"n_positions": 1024, "activation_function": "gelu_pytorch_tanh"}  # of transformers


@section
class GPTBigCodeConfig:
    """The shape of a GPTBigCode decoder (SantaCoder, arXiv 2301.03988; StarCoder, arXiv 2305.06161).

    Its attention has many query heads and one head of keys and values (multi-query, arXiv 1911.02150). Positions are a
    learned table, norms are LayerNorms, every projection has a bias.

    Attributes:
      kind: "gpt_bigcode".
      vocab_size: V, rows of the embedding.
      hidden_size: D, width of the residual stream; a multiple of `num_heads`.
      intermediate_size: F, width of the feed-forward block.
      num_layers: L.
      num_heads: N, query heads.
      activation: "gelu", the exact form with the error function, or "gelu_tanh", its approximation (arXiv 1606.08415).
      norm_epsilon: added to the variance in LayerNorm.
      max_positions: P, rows of the position table: the longest sequence that the model takes.
      tie_embeddings: whether the output projection is the embedding.
    """

    kind: Literal["gpt_bigcode"] = "gpt_bigcode"
    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_layers: Size
    num_heads: Size
    activation: Literal["gelu", "gelu_tanh"] = "gelu_tanh"
    norm_epsilon: Annotated[float, Field(gt=0)] = 1e-5
    max_positions: Size = 1024
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        """Checks the rules that join fields."""
        if self.hidden_size % self.num_heads:
            raise UserError(f"num_heads = {self.num_heads}: must divide hidden_size = {self.hidden_size}")

    @property
    def num_kv_heads(self) -> int:
        """K: all query heads share one head of keys and values."""
        return 1

    @property
    def head_dim(self) -> int:
        """H, what hidden_size leaves each query head."""
        return self.hidden_size // self.num_heads

    @property
    def context_length(self) -> int:
        """The longest sequence that the model takes; stages refuse longer ones."""
        return self.max_positions

    @property
    def up_size(self) -> int:
        """Numbers that the feed-forward block's first product gives for each token."""
        return self.intermediate_size

    @property
    def keys_follow_length(self) -> bool:
        """Whether a token's keys depend on how long its sequence will be: never."""
        return False

    @classmethod
    def from_hf(cls, data: dict[str, Any]) -> "GPTBigCodeConfig":
        """Returns the config that a Hugging Face `config.json` describes.

        Args:
          data: the parsed `config.json` of a `GPTBigCodeForCausalLM`.

        Raises:
          UserError: a needed key is missing, or keys ask for what this decoder does not do; all are named.
        """
        values = _DEFAULTS | data
        implemented = _IMPLEMENTED | {"activation_function": tuple(_ACTIVATIONS)}
        if faults := key_faults(data, "GPTBigCode", _NEEDED, implemented):
            refuse(faults)
        fields = {field: values[key] for field, key in _HF_KEYS.items() if key in values}
        fields["activation"] = _ACTIVATIONS[values["activation_function"]]
        if fields.get("intermediate_size") is None and isinstance(values["n_embd"], int):
            fields["intermediate_size"] = 4 * values["n_embd"]
        return build(cls, fields, _HF_KEYS)

    def to_hf(self) -> dict[str, Any]:
        """Returns the `config.json` mapping that makes `transformers` build the same model."""
        return {
            "architectures": ["GPTBigCodeForCausalLM"],
            "model_type": "gpt_bigcode",
            "multi_query": True,
            "scale_attn_weights": True,
            **{key: getattr(self, field) for field, key in _HF_KEYS.items()},
            "activation_function": {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}[self.activation],
            **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0),
        }
