"""How rotary frequencies are scaled for longer contexts: config sections, and their spellings in `config.json`.

The kinds and their parameters are those of transformers (`modeling_rope_utils.py`); `model/rope.py` computes with them.
config.json has them under `rope_scaling` (with `type` or `rope_type`) or, since transformers 5, `rope_parameters`. What
is not known there is a fault, never ignored.
"""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from jaxwiz.config import section
from jaxwiz.files import UserError

Factor = Annotated[float, Field(ge=1)]
Size = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]

DEFAULT_THETA = 10_000.0


@section
class LinearScaling:
    """Position interpolation (arXiv 2306.15595): all frequencies divided by one factor.

    Attributes:
      kind: "linear".
      factor: the divisor.
    """

    kind: Literal["linear"] = "linear"
    factor: Factor


@section
class DynamicScaling:
    """NTK-aware scaling that grows with the sequence: theta is raised for what exceeds the model's `max_positions`.

    Attributes:
      kind: "dynamic".
      factor: how many times `max_positions` sequences may be long.
    """

    kind: Literal["dynamic"] = "dynamic"
    factor: Factor


@section
class YarnScaling:
    """YaRN (arXiv 2309.00071): slow frequencies are divided, fast ones kept, and attention is sharpened.

    Attributes:
      kind: "yarn".
      factor: the divisor of slow frequencies.
      original_positions: the context trained on; it tells slow from fast.
      beta_fast: frequencies that turn more often than this over that context are kept.
      beta_slow: those that turn less often are divided; in between is a ramp.
      attention_factor: multiplies cosines and sines. None: derived from factor and the mscales.
      mscale: in the derivation, weight of log(factor) above the line; counts only with `mscale_all_dim`.
      mscale_all_dim: likewise below the line.
      truncate: whether the ramp's ends are rounded outwards to whole dimensions.
    """

    kind: Literal["yarn"] = "yarn"
    factor: Factor
    original_positions: Size
    beta_fast: Positive = 32.0
    beta_slow: Positive = 1.0
    attention_factor: Positive | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        """Checks the rule that joins fields."""
        if self.beta_fast < self.beta_slow:
            raise UserError(f"beta_fast = {self.beta_fast}: must be at least beta_slow = {self.beta_slow}")


@section
class Llama3Scaling:
    """Llama 3.1's scaling: long wavelengths divided, short ones kept, a ramp in between.

    Attributes:
      kind: "llama3".
      factor: the divisor of long wavelengths.
      low_freq_factor: wavelengths above original_positions / low_freq_factor are divided.
      high_freq_factor: those below original_positions / high_freq_factor are kept; above low_freq_factor.
      original_positions: the context trained on.
    """

    kind: Literal["llama3"] = "llama3"
    factor: Factor
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_positions: Size

    def __post_init__(self) -> None:
        """Checks the rule that joins fields."""
        if self.high_freq_factor <= self.low_freq_factor:
            raise UserError(
                f"high_freq_factor = {self.high_freq_factor}: must be above low_freq_factor = {self.low_freq_factor}"
            )


AnyScaling = LinearScaling | DynamicScaling | YarnScaling | Llama3Scaling
RopeScaling = Annotated[AnyScaling, Field(discriminator="kind")]

_KINDS: dict[str, type[AnyScaling]] = {
    "linear": LinearScaling,
    "dynamic": DynamicScaling,
    "yarn": YarnScaling,
    "llama3": Llama3Scaling,
}
_ORIGINAL = "original_max_position_embeddings"


def read_rope(data: dict[str, Any], faults: list[str]) -> tuple[Any, AnyScaling | None]:
    """Returns theta (unchecked) and the scaling that a `config.json` asks for, as transformers understands it.

    Args:
      data: the parsed `config.json`.
      faults: gets a line for everything that is unknown, unsupported or of a wrong type.
    """
    old, new = data.get("rope_scaling"), data.get("rope_parameters")
    wrong = [
        f"{key} = {value!r}: must be a mapping or null"
        for key, value in (("rope_scaling", old), ("rope_parameters", new))
        if value is not None and not isinstance(value, dict)
    ]
    if wrong:
        faults += wrong
        return None, None
    if old and new and old != new:
        faults.append(f"rope_scaling = {old!r} and rope_parameters = {new!r}: differ; keep the one that is meant")
    where = "rope_scaling" if old else "rope_parameters"
    given = {key: value for key, value in (old or new or {}).items() if value is not None}
    theta = given.pop("rope_theta", data.get("rope_theta"))
    if given.get("partial_rotary_factor") == 1:
        del given["partial_rotary_factor"]
    kinds = {str(given.pop(key)) for key in ("rope_type", "type") if key in given} or {"default"}
    if len(kinds) > 1:
        faults.append(f"{where}: rope_type and type differ ({' and '.join(sorted(kinds))}); keep the one that is meant")
    kind = kinds.pop()
    if kind not in ("default", *_KINDS):
        known = ", ".join(map(repr, ("default", *_KINDS)))
        faults.append(f"{where}.rope_type = {kind!r}: not supported, this decoder does {known}")
        return theta, None
    fields = {} if kind == "default" else {hf_name(f.name): f for f in dataclasses.fields(_KINDS[kind])}
    faults += [
        f"{where}.{key} = {value!r}: not supported, rope type {kind!r} has no such parameter"
        for key, value in given.items()
        if key not in fields
    ]
    if kind == "default":
        return theta, None
    if _ORIGINAL in fields:  # a key of config.json itself wins; without any it is the whole context
        given[_ORIGINAL] = data.get(_ORIGINAL) or given.get(_ORIGINAL) or data.get("max_position_embeddings")
    if kind == "yarn" and "factor" not in given:
        given["factor"] = _ratio(data.get("max_position_embeddings"), given[_ORIGINAL])
    values = {field.name: given[key] for key, field in fields.items() if key in given}
    try:
        return theta, TypeAdapter(_KINDS[kind]).validate_python({**values, "kind": kind})
    except ValidationError as error:
        for detail in error.errors():
            if detail["loc"]:
                key = hf_name(str(detail["loc"][0]))
                faults.append(f"{where}.{key} = {given.get(key)!r}: {detail['msg']}")
            else:  # a rule that joins fields
                faults.append(f"{where}: {detail['ctx']['error']}")
    return theta, None


def write_rope(scaling: AnyScaling) -> dict[str, Any]:
    """Returns `rope_scaling` of a `config.json` that `read_rope` and transformers read as this scaling."""
    values = dataclasses.asdict(scaling)
    kind = values.pop("kind")
    return {"rope_type": kind, **{hf_name(name): value for name, value in values.items() if value is not None}}


def hf_name(field: str) -> str:
    """Returns a field's name in config.json."""
    return _ORIGINAL if field == "original_positions" else field


def _ratio(longest: Any, original: Any) -> Any:
    usable = all(isinstance(size, int) and size > 0 for size in (longest, original))
    return longest / original if usable else None
