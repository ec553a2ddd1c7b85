"""What low-rank adapters are like, as a config section. Light: importing this loads no array library."""

from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.files import UserError

Target = Literal["q", "k", "v", "o", "gate", "up", "down"]
ALL_TARGETS: tuple[Target, ...] = ("q", "k", "v", "o", "gate", "up", "down")


@section
class LoraConfig:
    """Low-rank adapters (LoRA, arXiv 2106.09685): only they are trained, the model beside them is frozen.

    Attributes:
      rank: R, the width of the bottleneck.
      alpha: the correction is scaled by alpha / rank.
      targets: the projections that get an adapter, of attention (q, k, v, o) and feed-forward block (gate, up, down).
      dropout: the part of an adapter's inputs that is zeroed in training, anew for each adapter and micro-batch.
      rank_stabilized: scale by alpha / sqrt(rank) instead, so that a higher rank does not weaken it (arXiv 2312.03732).
      save: what a training run's `model/` is: "merged", a checkpoint with the adapters added to its kernels (beside it
        `adapter/` keeps them alone), or "adapter", only those.
    """

    rank: Annotated[int, Field(gt=0)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    targets: Annotated[tuple[Target, ...], Field(min_length=1)] = ALL_TARGETS
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rank_stabilized: bool = False
    save: Literal["merged", "adapter"] = "merged"

    def __post_init__(self) -> None:
        """Checks the rules that join fields."""
        if len(set(self.targets)) != len(self.targets):
            raise UserError(f"targets = {', '.join(self.targets)}: names one twice; name each projection once")

    @property
    def scale(self) -> float:
        """What the correction is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilized else self.rank)
