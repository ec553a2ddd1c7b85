"""Runs untrusted programs in processes of their own, confined, with limits on time, memory, files and threads.

    from jaxwiz.sandbox import Limits, Program, run_programs

What programs are, see program.py; how well they are confined here, level.py; what is held off, docs/sandbox.md.
"""

from jaxwiz.sandbox.inside.clock import machine_factor
from jaxwiz.sandbox.level import Level, SandboxError
from jaxwiz.sandbox.limits import Limits, Outcome
from jaxwiz.sandbox.pool import default_workers, run_program, run_programs, sandbox_level
from jaxwiz.sandbox.program import Program

__all__ = [
    "Level",
    "Limits",
    "Outcome",
    "Program",
    "SandboxError",
    "default_workers",
    "machine_factor",
    "run_program",
    "run_programs",
    "sandbox_level",
]
