"""Runs untrusted programs in processes of their own, with limits on time, memory, files and processes.

    from jaxwiz.sandbox import Limits, run_programs

Whatever a program does, the harness goes on: see server.py for how a verdict is reached and what is not yet held off.
"""

from jaxwiz.sandbox.limits import Limits, Outcome
from jaxwiz.sandbox.pool import (
    PROTECTING_LAYERS,
    SandboxError,
    default_workers,
    isolation_layers,
    run_program,
    run_programs,
)

__all__ = [
    "PROTECTING_LAYERS",
    "Limits",
    "Outcome",
    "SandboxError",
    "default_workers",
    "isolation_layers",
    "run_program",
    "run_programs",
]
