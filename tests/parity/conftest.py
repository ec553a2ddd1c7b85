"""Lets these tests import the modules of tests/golden, and skips them all where the parity extra is not installed."""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))

collect_ignore_glob: list[str] = []
if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
    collect_ignore_glob = ["test_live_*.py"]
