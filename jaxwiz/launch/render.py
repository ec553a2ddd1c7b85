"""A launch spec as what scripts and manifests need: shell variables, or a template with ${name} filled in.

One table of values serves both, so that a name means the same in every script and every manifest. Manifests are text:
what `$NAME` or `$(command)` means in them is left to the shell that runs there.
"""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from jaxwiz.files import UserError
from jaxwiz.launch.config import GpuNodes, LaunchConfig
from jaxwiz.launch.facts import SpecError, command_of, hosts_of

Value = str | int | tuple[str, ...]


def values_of(spec: LaunchConfig) -> dict[str, Value]:
    """Returns everything that scripts and manifests may use, by name."""
    hosts = hosts_of(spec)
    gpu_type = spec.accelerator.type if isinstance(spec.accelerator, GpuNodes) else ""
    sky = f"tpu-{hosts.tpu_type}:1" if hosts.tpu_type else f"{gpu_type}:{hosts.devices}" if gpu_type else ""
    pairs = tuple(f"{name}={value}" for name, value in spec.environment.items())
    return {
        "name": spec.name,
        "command": command_of(spec),
        "kind": spec.accelerator.kind,
        "hosts": hosts.count,
        "fewest_hosts": hosts.fewest,
        "slices": hosts.slices,
        "hosts_per_slice": hosts.count // hosts.slices,
        "devices": hosts.devices,
        "tpu_type": hosts.tpu_type,
        "runtime": hosts.names.runtime if hosts.names else "",
        "gke_type": hosts.gke_type,
        "topology": hosts.topology,
        "sky_accelerators": sky,
        "sky_nodes": hosts.slices if hosts.tpu_type else hosts.count,
        "spot": "true" if spec.spot else "",
        "retries": spec.retries,
        "grace_s": spec.grace_s,
        "setup": spec.setup,
        "source": spec.source,
        "image": spec.image,
        "bucket": spec.bucket,
        "bucket_name": spec.bucket.partition("://")[2],
        "environment": pairs,
        "time_limit": spec.slurm.time_limit,
        "sbatch_options": spec.slurm.options,
        "project": spec.google.project,
        "zone": spec.google.zone,
        "cluster": spec.google.cluster,
        "namespace": spec.google.namespace,
        "storage_account": spec.google.storage_account,
        "infra": spec.skypilot.infra,
        "disk_gb": spec.skypilot.disk_gb,
        "ray_address": spec.ray_address,
    }


def shell_variables(spec: LaunchConfig) -> str:
    """Returns assignments for bash, one a line: NAME=value, and NAME=(a b) for several values."""
    lines = []
    for name, value in values_of(spec).items():
        text = shlex.quote(str(value))
        if isinstance(value, tuple):
            text = f"({' '.join(map(shlex.quote, value))})"
        lines.append(f"{name.upper()}={text}\n")
    return "".join(lines)


def filled(spec: LaunchConfig, template: Path) -> str:
    """Returns a manifest: the template's text with every ${name} replaced.

    A line `#? name` drops what follows it, up to the next line of this kind, where that value is empty.
    """
    values: dict[str, str] = {}
    for name, value in values_of(spec).items():
        values[name] = shlex.join(value) if isinstance(value, tuple) else str(value)
    items = [{"name": name, "value": value} for name, value in spec.environment.items()]
    values["env_items"] = "\n".join(f"- {json.dumps(item)}" for item in items)
    values["argv"] = json.dumps(["jaxwiz", *command_of(spec)])
    values["env_map"] = json.dumps(dict(spec.environment))
    values["setup"] = "\n".join(spec.setup)
    try:
        lines = template.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--fill {template}: cannot read it ({error.strerror}); name a file of launch/") from None
    kept, keep = [], True
    for line in lines:
        condition = re.match(r"\s*#\? ?(\w*)$", line)
        if condition:
            keep = not condition[1] or bool(_value(values, condition[1], template))
        elif keep:
            kept.append(_fill_line(line, values, template))
    return "\n".join(kept) + "\n"


def _fill_line(line: str, values: Mapping[str, str], template: Path) -> str:
    block = re.fullmatch(r"(\s*)\$\{(\w+)\}", line)
    if block:  # alone on its line: every line of the value is indented as this one
        return "\n".join(block[1] + part for part in _value(values, block[2], template).splitlines())
    return re.sub(r"\$\{([a-z_]+)\}", lambda match: _value(values, match[1], template), line)


def _value(values: Mapping[str, str], name: str, template: Path) -> str:
    if name not in values:
        raise SpecError(f"{template}: ${{{name}}}: no such value; known: {', '.join(values)}")
    return values[name]
