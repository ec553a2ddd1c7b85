"""The decorator that makes a config section: a frozen, keyword-only dataclass that refuses unknown keys."""

import dataclasses
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def section(cls: type[T]) -> type[T]:
    """Returns `cls` as a frozen, keyword-only stdlib dataclass whose validation refuses unknown keys.

    A section has at most 15 fields (a test holds this): more is a sign of two sections.
    """
    cls.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)
