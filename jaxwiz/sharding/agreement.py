"""Do all processes of a job run the same? Compared before anything depends on it, and the odd one out is named.

Processes that disagree compile other programs and then wait for each other for ever, or train something that nobody
asked for. So each tells facts in topics ("config", "code", ...). First only digests go round; the facts themselves
follow where these differ.
"""

import collections
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jaxwiz
from jaxwiz.files import UserError, sha256_of_bytes
from jaxwiz.sharding.processes import Processes

Facts = Mapping[str, str]

# What decides about the program that is compiled, or about what is on disk.
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class AgreementError(UserError):
    """Processes of one job that are not alike; names process, topic, fact and both values."""


def require_agreement(processes: Processes, topics: Mapping[str, Facts]) -> None:
    """Returns if all processes gave the same facts; every one of them has to call it, with the same topics.

    Args:
      processes: of the job.
      topics: {topic: {fact: value}}.

    Raises:
      AgreementError: in all processes alike, with everything that differs.
    """
    if processes.count == 1:
        return
    digests = {topic: sha256_of_bytes(_to_text(facts).encode()) for topic, facts in topics.items()}
    if len(set(processes.gather(_to_text(digests)))) == 1:
        return
    told = [json.loads(text) for text in processes.gather(_to_text(topics))]
    faults = [fault for topic in topics for fault in _differences(topic, [each.get(topic, {}) for each in told])]
    raise AgreementError("\n".join(["the processes of this run are not alike; start all of them alike:", *faults]))


def _differences(topic: str, facts: list[Facts]) -> list[str]:
    """Returns a line for each process that differs from most, or from process 0 where there is no majority."""
    usual: dict[str, str] = {}
    for name in sorted({name for each in facts for name in each}):
        values = [each.get(name, "absent") for each in facts]
        usual[name] = collections.Counter(values).most_common(1)[0][0]  # of equally frequent ones the first
    lines = []
    for index, each in enumerate(facts):
        parts = [
            f"{name} = {each.get(name, 'absent')}, elsewhere {value}"
            for name, value in usual.items()
            if each.get(name, "absent") != value
        ]
        if parts:
            lines.append(f"  process {index} of {len(facts)} differs in {topic}: {'; '.join(parts)}")
    return lines


def config_facts(data: Any, key: str = "") -> dict[str, str]:
    """Returns the leaves of a dumped config as {dotted key: JSON}."""
    if isinstance(data, list | tuple):
        data = {str(number): item for number, item in enumerate(data)}
    if not isinstance(data, dict):
        return {key: json.dumps(data)}
    return {
        name: value
        for part, child in data.items()
        for name, value in config_facts(child, f"{key}.{part}" if key else str(part)).items()
    }


def code_facts() -> dict[str, str]:
    """Returns versions, and a digest over the source of jaxwiz as it is installed here."""
    package = Path(jaxwiz.__file__).parent
    sources = {path.relative_to(package).as_posix(): path.read_bytes() for path in sorted(package.rglob("*.py"))}
    digest = sha256_of_bytes(b"".join(name.encode() + b"\0" + text for name, text in sources.items()))
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {
        "jaxwiz": jaxwiz.__version__,
        "source of jaxwiz": digest[:12],
        "python": platform.python_version(),
        **versions,
    }


def _to_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
