"""Brings the modules that run inside the sandbox there: compiled once here, marshalled with their payload as data.

The server and its checkers run this very interpreter, so marshalled code is read back as it was written.
"""

import functools
import inspect
import marshal
from types import CodeType, ModuleType
from typing import Any

# A checker is these few lines; its module defines `run(payload, hands...)`.
_LOAD = "import marshal\ncode, payload = marshal.loads(data)\nspace = {}\nexec(code, space)\n"
CHECKER = _LOAD + "space['run'](payload, calls, report)\n"
# One that may need NumPy, which the server loads for programs that name it.
NUMPY_CHECKER = f"{CHECKER}# numpy\n"
MEASURER = _LOAD + "space['run'](payload, emit)\n"


@functools.cache
def source_of(module: ModuleType) -> str:
    """Returns a module's source."""
    return inspect.getsource(module)


def checker_data(module: ModuleType, payload: Any) -> bytes:
    """Returns the `data` of a program whose checker is CHECKER or MEASURER: a module and what its `run` is given."""
    return marshal.dumps((_code(module), payload))


@functools.cache
def _code(module: ModuleType) -> CodeType:
    return compile(source_of(module), f"<{module.__name__}>", "exec", dont_inherit=True)
