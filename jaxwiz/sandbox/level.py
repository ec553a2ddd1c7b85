"""How well programs are confined on this machine: found by trying, and part of every result.

L0  namespaces, landlock, seccomp and resource limits
L1  landlock, seccomp and resource limits: where a container, or the kernel, allows no namespaces
L2  anything less: no sandbox; programs are run only where the user insists
"""

import dataclasses
import sys

from jaxwiz.files import UserError

LEVELS = ("L0", "L1", "L2")


class SandboxError(UserError):
    """The sandbox can't be started on this machine."""


@dataclasses.dataclass(frozen=True)
class Level:
    """How programs are confined.

    Attributes:
      name: "L0", "L1" or "L2".
      layers: what holds.
      missing: why it is no better level, a line for each.
    """

    name: str
    layers: tuple[str, ...]
    missing: tuple[str, ...] = ()

    @property
    def warning(self) -> str | None:
        """What to tell the user of this level; None: nothing."""
        reasons = "; ".join(self.missing)
        if self.name == "L1":
            return (
                f"sandbox level L1: no namespaces here ({reasons}). Programs still can't touch files, the network "
                "or other processes, but they share process numbers and the disk with this machine"
            )
        if self.name == "L2":
            return (
                f"sandbox level L2 ({reasons}): programs run with your rights and could do whatever you can; score "
                "only completions that you would run yourself"
            )
        return None


def refusal(missing: tuple[str, ...]) -> SandboxError:
    """Returns the error for a machine on which nothing better than L2 holds."""
    remedy = "use Linux 5.13 or newer with landlock and seccomp"
    if sys.platform != "linux":
        remedy = f"this is {sys.platform}; use Linux, a container or a virtual machine"
    return SandboxError(
        f"sandbox: programs can't be confined here ({'; '.join(missing)}); {remedy}, or set unsafe_no_sandbox=true "
        "to run completions that you trust without protection"
    )
