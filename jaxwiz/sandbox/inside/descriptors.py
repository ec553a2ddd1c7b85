"""What a fork of the server does with the descriptors that it inherits: keeps its own, and reads its part of a request.

Closing all others is what keeps a program from the harness's socket and from the verdicts.
"""

import os

from jaxwiz.sandbox.inside.confine import RULES_AT

_FIRST_FREE = 3


def keep_only(*descriptors: int) -> list[int]:
    """Closes all files but the standard ones, these and the rule sets, and returns their new, low numbers."""
    aside = RULES_AT - 10
    high = [os.dup2(descriptor, aside + place, inheritable=False) for place, descriptor in enumerate(descriptors)]
    os.closerange(_FIRST_FREE, aside)
    low = [os.dup2(descriptor, _FIRST_FREE + place, inheritable=False) for place, descriptor in enumerate(high)]
    os.closerange(aside, RULES_AT)
    return low


def receive(control: int, count: int) -> bytes | None:
    """Returns that many bytes of the harness's socket, None if the harness is done, or gone."""
    data = bytearray()
    while len(data) < count:
        chunk = os.read(control, min(count - len(data), 1 << 20))
        if not chunk:
            return None
        data += chunk
    return bytes(data)


def receive_part(control: int, count: int) -> bytes:
    """Returns a fork's part of a request, which must be the next in the socket; ends the process if it isn't there."""
    data = receive(control, count)
    if data is None:
        os._exit(1)
    return data
