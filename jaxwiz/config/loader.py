"""YAML in, validated frozen dataclasses out: `extends`, dotted overrides, and every error at once.

The order: read the file, merge it over what it `extends`, apply `a.b=value` overrides, validate with pydantic in strict
mode. Strictness is JSON's, so "5" is no number and true is no integer, while strings become paths and lists tuples.
"""

import dataclasses
import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from jaxwiz.files import UserError

T = TypeVar("T")


class ConfigError(UserError):
    """A config that cannot be used; the message lists every fault with key, value, rule and remedy."""


class _StrictYamlLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and reads 2e-5 as a number, as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`; what stands beside it wins
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"{node.start_mark.name}:{line}: key {key!r} is given twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictYamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_config(path: Path, config_type: type[T], overrides: Sequence[str] = ()) -> T:
    """Returns the validated config in a YAML file.

    Args:
      path: the YAML file; its key `extends` names a file, relative to it, that it is merged over.
      config_type: the section class, or a union of section classes tagged by `kind`.
      overrides: "a.b=value" strings, applied after merging; the value is read as YAML.

    Raises:
      ConfigError: with every fault found.
    """
    return parse_config(read_config_file(path, overrides), config_type, str(path))


def read_config_file(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the plain mapping of a YAML file after `extends` and overrides, not yet validated.

    Raises:
      ConfigError: missing or unreadable file, bad YAML, a cycle of `extends`, a malformed override.
    """
    return read_overrides(overrides, _read_with_parents(path, ()))


def read_overrides(overrides: Sequence[str], data: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns `data`, if given, with "a.b=value" overrides applied, not yet validated.

    Raises:
      ConfigError: a malformed override.
    """
    data = {} if data is None else data
    for override in overrides:
        data = apply_override(data, override)
    return data


def parse_config(data: dict[str, Any], config_type: type[T], source: str) -> T:
    """Returns `data` validated as `config_type`.

    Args:
      data: plain mapping, as YAML gives it.
      config_type: a section class or a tagged union.
      source: where the data came from, for messages.

    Raises:
      ConfigError: with every fault found.
    """
    adapter: TypeAdapter[T] = TypeAdapter(config_type)
    try:
        text = json.dumps(data)
    except TypeError as error:
        raise ConfigError(f"{source}: {error}; quote dates and other special values") from None
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        faults = [_explain(fault, config_type) for fault in error.errors()]
        raise ConfigError(
            "\n".join([f"{source}: {len(faults)} fault(s)", *(f"  {fault}" for fault in faults)])
        ) from None


def dump_config(config: Any) -> dict[str, Any]:
    """Returns a config as a plain JSON-able mapping with every default filled in."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def to_yaml(config: Any) -> str:
    """Returns a config as YAML text with every default filled in; loading it gives an equal config."""
    return yaml.safe_dump(dump_config(config), sort_keys=False, allow_unicode=True, width=120)


def _read_with_parents(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in children:
        raise ConfigError(f"{path}: extends itself by way of {', '.join(map(str, children))}; break the cycle")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the config ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the config is not UTF-8 text; is this the right file?") from None
    loader = _StrictYamlLoader(text)
    loader.name = str(path)
    try:
        data = loader.get_single_data()
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    finally:
        loader.dispose()
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: the top level is {type(data).__name__}; it must be a mapping of keys to values")
    parent = data.pop("extends", None)
    if parent is None:
        return data
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends = {parent!r}; it must be the path of one YAML file, relative to this one")
    return merge(_read_with_parents(path.parent / parent, (*children, path.resolve())), data)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Returns `base` with `over` laid upon it, mapping by mapping; a mapping of another `kind` is replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind"):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def apply_override(data: dict[str, Any], override: str) -> dict[str, Any]:
    """Returns `data` with one "a.b=value" override applied; `data` itself is changed."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"override {override!r}: must have the form a.b=value")
    try:
        value = yaml.load(text, _StrictYamlLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML: {error}") from None
    target: Any = data
    *parents, last = dotted.split(".")
    for key in parents:
        target = _list_item(target, key, override) if isinstance(target, list) else target.setdefault(key, {})
        if not isinstance(target, dict | list):
            raise ConfigError(f"override {override!r}: {key!r} holds {target!r}, not a section; shorten the key")
    if isinstance(target, list):
        _list_item(target, last, override)
        target[int(last)] = value
    else:
        target[last] = merge({last: target.get(last)}, {last: value})[last]
    return data


def _list_item(items: list[Any], key: str, override: str) -> Any:
    if not key.isdigit() or int(key) >= len(items):
        raise ConfigError(f"override {override!r}: {key!r} must be an index from 0 to {len(items) - 1}")
    return items[int(key)]


def _explain(fault: Any, config_type: Any) -> str:
    """Returns one line for one pydantic error: key, value, rule, remedy."""
    location, sections = _locate(config_type, fault["loc"])
    key = ".".join(location) or "(top level)"
    value = fault["input"]
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    kind = fault["type"]
    if kind == "unexpected_keyword_argument":
        known = sorted({field.name for one in sections for field in dataclasses.fields(one)})
        close = difflib.get_close_matches(location[-1], known, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        return f"{key} = {shown}: unknown key; {remedy}"
    if kind == "missing":
        return f"{key}: required, but not given; add it"
    if kind == "union_tag_not_found":
        kinds = sorted(tag for one in sections for tag in get_args(get_type_hints(one)["kind"]))
        return f"{key}: needs a 'kind', one of {', '.join(map(repr, kinds))}"
    if kind == "union_tag_invalid":
        return f"{key}.kind = {fault['ctx']['tag']!r}: must be one of {fault['ctx']['expected_tags']}"
    rule = fault["msg"][0].lower() + fault["msg"][1:]
    quoting = (
        "; quote it, so that YAML keeps it as text" if kind == "string_type" and not isinstance(value, dict) else ""
    )
    return f"{key} = {shown}: {rule.removeprefix('value error, ')}{quoting}"


def _locate(config_type: Any, location: tuple[str | int, ...]) -> tuple[list[str], list[Any]]:
    """Returns a pydantic location as the user's keys, without tags of unions, and the section classes it leads to.

    For a key that no section has, those are the sections that lack it.
    """
    keys = []
    sections = _sections(config_type)
    for part in location:
        tagged = [one for one in sections if part in get_args(get_type_hints(one).get("kind"))]
        if tagged:
            sections = tagged
            continue
        keys.append(str(part))
        hints = [get_type_hints(one)[part] for one in sections if isinstance(part, str) and part in get_type_hints(one)]
        sections = [found for hint in hints for found in _sections(hint)] or sections
    return keys, sections


def _sections(hint: Any) -> list[Any]:
    """Returns the section classes inside a type hint: itself, or those of its union, tuple, dict or Annotated."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    return [found for argument in get_args(hint) for found in _sections(argument)]
