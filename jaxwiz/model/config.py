"""The shape of a decoder, read from and written to Hugging Face's `config.json`: here Llama's, and what tells families
apart; `model/gpt_bigcode_config.py` has the other one.

Every field is live: a test changes each one and sees parameters or logits change. What the decoder does not do is
refused by name when a `config.json` asks for it, never ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from jaxwiz.config import parse_config, section
from jaxwiz.files import UserError
from jaxwiz.model.gpt_bigcode_config import GPTBigCodeConfig, Size
from jaxwiz.model.hf_config import build, key_faults, refuse
from jaxwiz.model.rope_config import DEFAULT_THETA, DynamicScaling, RopeScaling, read_rope, write_rope

# config.json keys whose other values would change the computation, with the values that this decoder implements. Beside
# Llama's and Mistral's own they are those by which relatives of Llama depart from it under keys of theirs.
_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "model_type": ("llama", "mistral"),
    "hidden_act": ("silu", "swish"),
    "hidden_activation": ("silu", "swish", None),
    "pretraining_tp": (1, None),
    "quantization_config": (None,),
    "attention_dropout": (0, None),
    "hidden_dropout": (0, None),
    "resid_pdrop": (0, None),
    "embd_pdrop": (0, None),
    "partial_rotary_factor": (1, None),
    "rope_interleaved": (False, None),
    "use_qk_norm": (False, None),
    "qk_norm": (False, None),
    "clip_qkv": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "query_pre_attn_scalar": (None,),
    "attention_multiplier": (None,),
    "embedding_multiplier": (1, None),
    "residual_multiplier": (1, None),
    "logits_scaling": (1, None),
    "logit_scale": (1, None),
    "num_local_experts": (0, 1, None),
    "num_experts": (0, 1, None),
    "no_rope_layers": (None, []),
    "alibi": (False, None),
    "parallel_attn": (False, None),
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "pruned_heads": (None, {}),
}

# Field -> key of config.json.
_HF_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "rope_theta": "rope_theta",
    "norm_epsilon": "rms_norm_eps",
    "max_positions": "max_position_embeddings",
    "tie_embeddings": "tie_word_embeddings",
    "attention_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
}
_NEEDED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")

_DERIVED = ("num_key_value_heads", "head_dim")  # null means: follows from other keys

# What transformers takes where a key is absent; "num_key_value_heads" of Llama is num_attention_heads.
_DEFAULTS: dict[str, Any] = {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048}
_MISTRAL_DEFAULTS: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 131_072,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
}


@section
class LlamaConfig:
    """The shape of a Llama decoder (Touvron et al., arXiv 2302.13971).

    Attributes:
      kind: "llama".
      vocab_size: V, rows of the embedding.
      hidden_size: D, width of the residual stream.
      intermediate_size: F, width of the gated feed-forward block.
      num_layers: L.
      num_heads: N, query heads.
      num_kv_heads: K, key and value heads; divides N (grouped-query attention, arXiv 2305.13245).
      head_dim: H, even.
      rope_theta: base of the rotary frequencies (arXiv 2104.09864).
      norm_epsilon: added to the mean square in RMSNorm.
      max_positions: longest sequence that the model was made for; `dynamic` scaling begins beyond it.
      tie_embeddings: whether the output projection is the embedding.
      attention_bias: whether the projections of attention add a bias.
      mlp_bias: whether those of the feed-forward block do.
      rope_scaling: how the rotary frequencies are scaled for a longer context; None: not at all.
    """

    kind: Literal["llama"] = "llama"
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
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        """Checks the rules that join fields."""
        if self.num_heads % self.num_kv_heads:
            raise UserError(f"num_kv_heads = {self.num_kv_heads}: must divide num_heads = {self.num_heads}")
        if self.head_dim % 2:
            raise UserError(f"head_dim = {self.head_dim}: must be even, rotary embeddings turn pairs")
        if self.head_dim == 2 and isinstance(self.rope_scaling, DynamicScaling):
            raise UserError(
                "head_dim = 2: must be at least 4 for dynamic rope scaling, which keeps the first frequency"
            )

    @property
    def context_length(self) -> int:
        """The longest sequence that the model takes; stages refuse longer ones."""
        scaling = self.rope_scaling
        return int(self.max_positions * (scaling.factor if isinstance(scaling, DynamicScaling) else 1))

    @property
    def up_size(self) -> int:
        """Numbers that the feed-forward block's first products, gate and up, give for each token."""
        return 2 * self.intermediate_size

    @property
    def keys_follow_length(self) -> bool:
        """Whether a token's keys depend on how long its sequence will be; see `model/rope.py`."""
        return isinstance(self.rope_scaling, DynamicScaling)

    @classmethod
    def from_hf(cls, data: dict[str, Any]) -> "LlamaConfig":
        """Returns the config that a Hugging Face `config.json` describes.

        Args:
          data: the parsed `config.json` of a `LlamaForCausalLM`.

        Raises:
          UserError: a needed key is missing, or keys ask for what this decoder does not do; all are named.
        """
        mistral = data.get("model_type") == "mistral"
        values = (_MISTRAL_DEFAULTS if mistral else _DEFAULTS) | data
        faults = key_faults(data, "Llama", _NEEDED, _IMPLEMENTED) + _window_faults(values, mistral)
        theta, scaling = read_rope(data, faults)
        fields = {
            field: values[key]
            for field, key in _HF_KEYS.items()
            if key in values and not (values[key] is None and key in _DERIVED)
        }
        fields["rope_theta"] = DEFAULT_THETA if theta is None else theta
        fields.setdefault("num_kv_heads", values.get("num_attention_heads"))
        if "head_dim" not in fields and not faults:
            try:
                fields["head_dim"] = values["hidden_size"] // values["num_attention_heads"]
            except (TypeError, ZeroDivisionError):
                faults.append("head_dim: missing, and hidden_size / num_attention_heads is no number")
        if faults:
            refuse(faults)
        return build(cls, fields | {"rope_scaling": scaling}, _HF_KEYS)

    def to_hf(self) -> dict[str, Any]:
        """Returns the `config.json` mapping that makes `transformers` build the same model."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            **{key: getattr(self, field) for field, key in _HF_KEYS.items()},
            **({} if self.rope_scaling is None else {"rope_scaling": write_rope(self.rope_scaling)}),
        }


def _family(data: Any) -> str:
    """Returns the kind of a plain mapping or a config; configs written before there was a second one have none."""
    kind = data.get("kind", "llama") if isinstance(data, dict) else getattr(data, "kind", "llama")
    return str(kind)


# A decoder's shape, of either family.
ModelConfig = Annotated[
    Annotated[LlamaConfig, Tag("llama")] | Annotated[GPTBigCodeConfig, Tag("gpt_bigcode")], Discriminator(_family)
]


def parse_model_config(data: dict[str, Any], source: str) -> ModelConfig:
    """Returns the config of either family in a plain mapping; see `parse_config`."""
    return parse_config(data, ModelConfig, source)  # type: ignore[arg-type] # mypy takes no union for a type


def model_config_from_hf(data: dict[str, Any]) -> ModelConfig:
    """Returns the config of whichever family a Hugging Face `config.json` is of; raises UserError as `from_hf` does."""
    family = GPTBigCodeConfig if data.get("model_type") == "gpt_bigcode" else LlamaConfig
    return family.from_hf(data)


def axis_sizes(config: ModelConfig) -> dict[str, int]:
    """Returns the size of each axis letter that parameters use."""
    sizes = {
        "V": config.vocab_size,
        "D": config.hidden_size,
        "N": config.num_heads,
        "K": config.num_kv_heads,
        "H": config.head_dim,
        "F": config.intermediate_size,
    }
    if isinstance(config, GPTBigCodeConfig):
        sizes |= {"P": config.max_positions, "M": config.num_heads + 2}  # M: query heads, the key's, the value's
    return sizes


def _window_faults(values: dict[str, Any], mistral: bool) -> list[str]:
    """Returns the fault of a config.json whose queries do not see all keys: with a window or other kinds of layers."""
    window, positions = values.get("sliding_window"), values["max_position_embeddings"]
    whole = window is None or (isinstance(window, int) and isinstance(positions, int) and window >= positions)
    faults = []
    if not (whole or (not mistral and values.get("use_sliding_window") is False)):
        faults.append(
            f"sliding_window = {window!r}: not supported, this decoder does None or no less than "
            f"max_position_embeddings = {positions!r}" + (" (4096 where Mistral's is absent)" if mistral else "")
        )
    layer_types = values.get("layer_types") or []
    if set(map(str, layer_types)) - {"full_attention"}:
        faults.append(f"layer_types = {layer_types!r}: not supported, this decoder does 'full_attention'")
    return faults
