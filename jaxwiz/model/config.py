"""The shape of a Llama decoder, read from and written to Hugging Face's `config.json`.

Every field is live: a test changes each one and sees parameters or logits change. What the decoder cannot do yet is
refused by name when a `config.json` asks for it, never ignored.
"""

from typing import Annotated, Any

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.files import UserError

Size = Annotated[int, Field(gt=0)]

# config.json keys whose other values would change the computation, with the values that this decoder implements.
_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "model_type": ("llama",),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_scaling": (None,),
    "sliding_window": (None,),
    "pretraining_tp": (1,),
}


@section
class LlamaConfig:
    """The shape of a Llama decoder (Touvron et al., arXiv 2302.13971).

    Attributes:
      vocab_size: V, rows of the embedding.
      hidden_size: D, width of the residual stream.
      intermediate_size: F, width of the gated feed-forward block.
      num_layers: L.
      num_heads: N, query heads.
      num_kv_heads: K, key and value heads; divides N (grouped-query attention, arXiv 2305.13245).
      head_dim: H, even.
      rope_theta: base of the rotary frequencies (arXiv 2104.09864).
      norm_epsilon: added to the mean square in RMSNorm.
      max_positions: longest sequence that the model was made for; stages refuse longer ones.
      tie_embeddings: whether the output projection is the embedding.
    """

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_layers: Size
    num_heads: Size
    num_kv_heads: Size
    head_dim: Size
    rope_theta: Annotated[float, Field(gt=0)] = 10_000.0
    norm_epsilon: Annotated[float, Field(gt=0)] = 1e-5
    max_positions: Size = 2048
    tie_embeddings: bool = False

    def __post_init__(self) -> None:
        """Checks the rules that join fields."""
        if self.num_heads % self.num_kv_heads:
            raise UserError(f"num_kv_heads = {self.num_kv_heads}: must divide num_heads = {self.num_heads}")
        if self.head_dim % 2:
            raise UserError(f"head_dim = {self.head_dim}: must be even, rotary embeddings turn pairs")

    @classmethod
    def from_hf(cls, data: dict[str, Any]) -> "LlamaConfig":
        """Returns the config that a Hugging Face `config.json` describes.

        Args:
          data: the parsed `config.json` of a `LlamaForCausalLM`.

        Raises:
          UserError: a needed key is missing, or keys ask for what this decoder does not do; all are named.
        """
        faults = [
            f"{key} = {data[key]!r}: not supported, this decoder does {' or '.join(map(repr, allowed))}"
            for key, allowed in _IMPLEMENTED.items()
            if key in data and data[key] not in allowed
        ]
        rope = data.get("rope_parameters") or {}  # the spelling of transformers 5
        if rope.get("rope_type", "default") != "default":
            faults.append(
                f"rope_parameters.rope_type = {rope['rope_type']!r}: not supported, this decoder does 'default'"
            )
        needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        faults += [f"{key}: missing; a Llama config.json has it" for key in needed if key not in data]
        if faults:
            raise UserError("config.json: " + "; ".join(faults))
        heads = data["num_attention_heads"]
        return cls(
            vocab_size=data["vocab_size"],
            hidden_size=data["hidden_size"],
            intermediate_size=data["intermediate_size"],
            num_layers=data["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=data.get("num_key_value_heads") or heads,
            head_dim=data.get("head_dim") or data["hidden_size"] // heads,
            rope_theta=float(rope.get("rope_theta") or data.get("rope_theta") or 10_000.0),
            norm_epsilon=float(data.get("rms_norm_eps", 1e-6)),  # 1e-6: LlamaConfig's default in transformers
            max_positions=data.get("max_position_embeddings", 2048),
            tie_embeddings=bool(data.get("tie_word_embeddings", False)),
        )

    def to_hf(self) -> dict[str, Any]:
        """Returns the `config.json` mapping that makes `transformers` build the same model."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.norm_epsilon,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": self.tie_embeddings,
            "attention_bias": False,
            "mlp_bias": False,
        }
