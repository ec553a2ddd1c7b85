"""Configs: frozen dataclasses beside the code that reads them, loaded from YAML by one strict loader.

    from jaxwiz.config import section, load_config

    @section
    class OptimizerConfig:
        learning_rate: float = 2e-5

Unknown keys, wrong types and duplicate keys are errors, all reported at once, each with key, value and remedy.
Nothing is read from the environment.
"""

from jaxwiz.config.check import Finding, input_paths, missing_inputs
from jaxwiz.config.loader import (
    ConfigError,
    dump_config,
    load_config,
    parse_config,
    read_config_file,
    read_overrides,
    to_yaml,
)
from jaxwiz.config.section import section

__all__ = [
    "ConfigError",
    "Finding",
    "dump_config",
    "input_paths",
    "load_config",
    "missing_inputs",
    "parse_config",
    "read_config_file",
    "read_overrides",
    "section",
    "to_yaml",
]
