"""What `jaxwiz check` finds before anything runs. One walk finds inputs: `Path` fields but `out`, template files."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
      level: "ok", "warning" (the run will work, but look) or "error" (the run would fail).
      message: what was found, with key, value, rule and remedy where it is an error.
    """

    level: Literal["ok", "warning", "error"]
    message: str


def input_paths(config: Any, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Yields (dotted key, path) for every path that a config reads.

    These are all `Path` values except the fields named `out`, and a `template` that is a file's path, not a name.
    """
    if dataclasses.is_dataclass(config):
        children = [(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)]
    elif isinstance(config, dict):
        children = list(config.items())
    elif isinstance(config, tuple):
        children = [(str(index), item) for index, item in enumerate(config)]
    else:
        return
    for name, value in children:
        key = f"{prefix}{name}"
        if isinstance(value, Path):
            if name != "out":
                yield key, value
        elif name == "template" and isinstance(value, str) and value.endswith(".jinja"):
            yield key, Path(value)
        else:
            yield from input_paths(value, f"{key}.")


def missing_inputs(config: Any) -> list[Finding]:
    """Returns an error for each input path of `config` that does not exist."""
    return [
        Finding("error", f"{key} = '{path}': no such file or folder; create it or correct the key")
        for key, path in input_paths(config)
        if not path.exists()
    ]
