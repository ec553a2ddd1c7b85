"""The made benchmark's tasks, and a browser."""

from collections.abc import Iterator

import pytest

from jaxwiz.clean.tasks import Task
from tests.clean.made import made_tasks
from tests.evaluate.chromium import EXECUTABLE, Chromium


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    """The made benchmarks' tasks."""
    return made_tasks(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A headless browser; tests that need one are skipped where there is none."""
    if EXECUTABLE is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    browser = Chromium(tmp_path_factory.mktemp("chromium") / "profile")
    yield browser
    browser.close()
