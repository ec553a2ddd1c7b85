"""The made benchmark's tasks."""

import pytest

from jaxwiz.clean.tasks import Task
from tests.clean.made import made_tasks


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    """The made benchmarks' tasks."""
    return made_tasks(tmp_path_factory.mktemp("made"))
