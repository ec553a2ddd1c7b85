"""The tiny model and dataset of the training tests, for jobs that really train."""

import importlib.util

if importlib.util.find_spec("jax"):  # `make test-launch` has no JAX, and needs neither
    from tests.train.conftest import tiny_checkpoint, tiny_dataset

    __all__ = ["tiny_checkpoint", "tiny_dataset"]
