"""Where work is done: in this process, or on the nodes of a Ray cluster. Imports no Ray."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from jaxwiz.config import section


@section
class LocalEngine:
    """In this process."""

    kind: Literal["local"] = "local"


@section
class RayEngine:
    """On the nodes of a running Ray cluster; this process must run on one of them.

    Attributes:
      address: of the cluster's head, "host:port"; "auto" finds the cluster that this machine belongs to.
      workers_per_node: processes on each node that do the work. Scoring uses all cores with one; sampling uses one
        device a process.
      resources: what each process needs and has to itself, in Ray's names, such as {GPU: 1}; nodes that have less get
        no work.
      retries: how often a piece of work is given to another process after the one that had it was lost.
    """

    kind: Literal["ray"] = "ray"
    address: Annotated[str, Field(pattern=r"^(auto|.+:\d+)$")] = "auto"
    workers_per_node: Annotated[int, Field(gt=0, le=256)] = 1
    resources: dict[str, Annotated[float, Field(gt=0)]] = dataclasses.field(default_factory=lambda: {"CPU": 1.0})
    retries: Annotated[int, Field(ge=0)] = 3


def _kind_alone(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


EngineConfig = Annotated[
    LocalEngine | RayEngine,
    Field(discriminator="kind"),
    BeforeValidator(_kind_alone),  # `engine: ray` is short for `engine: {kind: ray}`
]
