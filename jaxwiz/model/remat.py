"""What a decoder layer keeps of its forward pass for the backward pass, by name.

A layer's backward pass needs its activations: keep them all (most memory), recompute them all from the layer's input
(a third more arithmetic), or something between. The loss and its gradient are the same under every policy.

| policy | kept for each layer, beside its input |
|---|---|
| none | everything |
| full | nothing |
| dots | results of products with weights; not attention scores, whose size grows with the square of T |
| save_feed_forward | as save_attention, and what gate and up give: near half of a layer's products with weights |
| save_attention | the attention output; splash and pallas then go back without running forward again |
| offload | as save_attention, but that and the layer's input wait in the host's memory |
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from jaxwiz.files import UserError

LAYER_INPUT = "layer_input"
ATTENTION = "attention"
FEED_FORWARD = "feed_forward"

_HOST_MEMORY = "pinned_host"

Policy = Callable[..., Any] | None

POLICIES: dict[str, Policy] = {
    "none": jax.checkpoint_policies.everything_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "save_feed_forward": jax.checkpoint_policies.save_only_these_names(ATTENTION, FEED_FORWARD),
    "save_attention": jax.checkpoint_policies.save_only_these_names(ATTENTION),
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[LAYER_INPUT, ATTENTION],
        offload_src="device",
        offload_dst=_HOST_MEMORY,
    ),
}


def named(name: str, x: jax.Array) -> jax.Array:
    """Returns `x`, marked with a name that policies know: `LAYER_INPUT`, `ATTENTION` or `FEED_FORWARD`."""
    return checkpoint_name(x, name)


def with_remat(layer: Callable[..., Any], policy: str, *, scanned: bool) -> Callable[..., Any]:
    """Returns the function `layer`, whose backward pass keeps what `policy` says.

    Args:
      layer: a pure function.
      policy: a key of `POLICIES`.
      scanned: whether it is the body of a scan; if not, the compiler must be kept from merging the recomputation with
        the forward pass, which costs some fusion.
    """
    if policy == "none":
        return layer
    return jax.checkpoint(layer, policy=POLICIES[policy], prevent_cse=not scanned)


def require_offload_memory(policy: str, device: jax.Device) -> None:
    """Checks that a device's host can take what the policy offloads.

    Raises:
      UserError: it has no pinned host memory.
    """
    kinds = sorted(memory.kind for memory in device.addressable_memories())
    if policy == "offload" and _HOST_MEMORY not in kinds:
        raise UserError(
            f"compute.remat = 'offload': {device.device_kind} offers no {_HOST_MEMORY} memory (only "
            f"{', '.join(kinds)}); use 'full' or 'save_attention'"
        )
