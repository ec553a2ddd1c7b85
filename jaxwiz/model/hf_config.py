"""What reading a Hugging Face `config.json` is for every family of decoders: all faults at once, each by its key."""

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from jaxwiz.files import UserError

C = TypeVar("C")


def key_faults(
    data: Mapping[str, Any], family: str, needed: Iterable[str], implemented: Mapping[str, tuple[Any, ...]]
) -> list[str]:
    """Returns what is wrong with the keys themselves.

    Args:
      data: the parsed `config.json`.
      family: its name, for people.
      needed: keys that must be there.
      implemented: the values of a key that the decoder implements; others would change the computation.
    """
    missing = [f"{key}: missing; a {family} config.json has it" for key in needed if key not in data]
    return missing + [
        f"{key} = {data[key]!r}: not supported, this decoder does {' or '.join(map(repr, allowed))}"
        for key, allowed in implemented.items()
        if key in data and data[key] not in allowed
    ]


def build(config_type: type[C], fields: Mapping[str, Any], keys: Mapping[str, str]) -> C:
    """Returns the config of these fields; raises UserError with their faults under the `config.json` keys `keys`."""
    try:
        return TypeAdapter(config_type).validate_python(fields)
    except ValidationError as error:
        refuse(
            f"{keys[str(detail['loc'][0])]} = {detail['input']!r}: {detail['msg']}"
            if detail["loc"]
            else str(detail["ctx"]["error"])  # a rule that joins fields
            for detail in error.errors()
        )


def refuse(faults: Iterable[str]) -> NoReturn:
    """Raises UserError with all faults."""
    raise UserError("config.json: " + "; ".join(faults))
