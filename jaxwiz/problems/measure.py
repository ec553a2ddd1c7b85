"""Runs a canonical solution on its inputs, in the sandbox, and hands out results and times.

Standard library only, and nothing from the rest of jaxwiz.
"""

import copy
import json
import marshal
import time
from collections.abc import Callable, Mapping
from typing import Any

VALUE, FINGERPRINT = 0, 1  # as oracle.py reads them


def run(payload: Mapping[str, Any], emit: Callable[[bytes], None]) -> None:
    """Emits JSON of [CPU seconds per call, those for fingerprinting], a line break, and marshalled expected results.

    Args:
      payload: {"source", "name" of the function, "arguments": a list per call, "not_none": whether only that counts,
        "exact": whether a large result may be given by its fingerprint, "fingerprint": source of that module}.
      emit: takes bytes to hand out.
    """
    program: dict[str, Any] = {}
    exec(compile(payload["source"], "<canonical>", "exec", dont_inherit=True), program)
    function = program[payload["name"]]
    fingerprint: dict[str, Any] = {}
    exec(payload["fingerprint"], fingerprint)
    times_s: list[float] = []
    extra_s: list[float] = []
    expected: list[Any] = []
    for arguments in payload["arguments"]:
        given = copy.deepcopy(arguments)
        start = time.process_time()
        result = function(*given)
        times_s.append(time.process_time() - start)
        if payload["not_none"]:
            result = result is not None
        if payload["exact"] and not _is_floats(result) and fingerprint["is_large"](result):
            start = time.process_time()
            strict, text = fingerprint["strict"](result)
            extra_s.append(max(time.process_time() - start, 1e-6))
            expected.append((FINGERPRINT, strict, fingerprint["loose"](), text))
        else:
            extra_s.append(0.0)
            expected.append((VALUE, _plain(result)))
    emit(json.dumps([times_s, extra_s]).encode() + b"\n" + marshal.dumps(expected))


def _is_floats(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, float) for item in value)


def _plain(value: Any) -> Any:
    """Returns a value with dict subclasses (Counter) as dicts, which compare alike and can be marshalled."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value
