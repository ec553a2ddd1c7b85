"""What the processes of a training run have to agree on beyond config and code: its inputs, its devices, its mesh."""

import jax
from jax.sharding import Mesh

from jaxwiz import files
from jaxwiz.sharding.agreement import Facts
from jaxwiz.train.config import TrainConfig


def input_facts(config: TrainConfig) -> dict[str, Facts]:
    """Returns what inputs, devices and output folder look like from this process.

    Digests of the manifests cover the data itself, since they hold those of the shards. Process 0 has written its
    step.json before: whoever doesn't see it has another folder of that name.
    """
    datasets = [config.dataset, *(share.path for share in config.mix)]
    kinds = sorted({device.device_kind for device in jax.local_devices()})
    return {
        "data manifest": {str(path): files.sha256_of_file(path / "manifest.json")[:12] for path in datasets},
        "checkpoint": {str(config.checkpoint): files.sha256_of_file(config.checkpoint / "model.json")[:12]},
        "view of the output folder": {f"{config.out}/step.json": str((config.out / "step.json").exists())},
        "devices": {"own": f"{jax.local_device_count()} x {', '.join(kinds)}", "of all": str(jax.device_count())},
    }


def mesh_facts(mesh: Mesh) -> dict[str, Facts]:
    """Returns the mesh's axes and the order of its devices."""
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    return {"mesh": {"axes": axes, "order of devices": str([device.id for device in mesh.devices.flat])}}
