"""Short stand-ins for results too large to send: equal results have equal fingerprints.

A few canonical results have up to a hundred megabytes. Those are not kept but fingerprinted, and the candidate's
process fingerprints its own: a program can't name the fingerprint of a right answer that it does not have. Two kinds,
because `[1, 2] == [1.0, True + 1]`: the strict one is quick and equal for equal types; only where it differs is the
loose one asked for, which is equal exactly if the values are.

Runs inside the sandbox, on both sides: standard library only, nothing from the rest of jaxwiz.
"""

import hashlib
import marshal
import reprlib
from typing import Any

LARGE_BYTES = 1 << 16

_kept: list[object] = []  # the last value of `strict`, for `loose`


def is_large(value: object) -> bool:
    """Returns whether a value is large, and of such types that its fingerprint can stand for it."""
    if isinstance(value, str):
        return len(value) > LARGE_BYTES
    if not isinstance(value, int | list | tuple):
        return False
    try:
        if len(marshal.dumps(value, 0)) <= LARGE_BYTES:
            return False
        _normal(value)
    except ValueError:
        return False
    return True


def strict(value: object) -> list[str]:
    """Returns [fingerprint, the value's beginning as text]; no fingerprint ("") if it is not plain data."""
    _kept[:] = [value]
    try:
        preview = reprlib.repr(value)
    except Exception:  # an integer with too many digits, or a __repr__ of the candidate's
        preview = f"a large {type(value).__name__}"
    try:
        return [_digest(value), preview]
    except ValueError:
        return ["", preview]


def loose() -> str:
    """Returns the fingerprint of what `strict` was last asked for that equal values share; "" if there is none."""
    try:
        return _digest(_normal(_kept[0]))
    except ValueError:
        return ""


def _digest(value: Any) -> str:
    # Version 0 writes neither references nor interning, so the bytes depend on the value alone.
    return hashlib.sha256(marshal.dumps(value, 0)).hexdigest()


def _normal(value: object) -> object:
    """Returns the one value that stands for all that are equal to it; raises ValueError for other types."""
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, tuple):
        return tuple([_normal(item) for item in value])
    if value is None or type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if type(value).__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, int | float):
        return (
            int(value)
            if value == value and value not in (float("inf"), float("-inf")) and value == int(value)
            else value
        )
    raise ValueError(f"no fingerprint for {type(value).__name__}")
