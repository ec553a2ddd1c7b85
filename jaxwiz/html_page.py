"""What the reports have in common: how their templates are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2


def page_environment(folder: Path, **filters: Callable[..., Any]) -> jinja2.Environment:
    """Returns what renders the templates of a folder: every value is escaped, and one that is missing is an error.

    Args:
      folder: where the templates lie.
      filters: functions that templates call by these names.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment
