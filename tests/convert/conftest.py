"""Lets these tests import the modules of tests/golden, and gives them small models."""

import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from sentencepiece import SentencePieceTrainer

from jaxwiz.convert.tensors import ModelFiles, ParamsReader
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import init_params

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))

# Every axis has its own size, so that a swapped pair cannot pass.
TINY = LlamaConfig(
    vocab_size=400, hidden_size=20, intermediate_size=28, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=4
)


@pytest.fixture
def tiny_config() -> LlamaConfig:
    return TINY


@pytest.fixture
def tiny_model(tiny_tokenizer_folder: Path) -> ModelFiles:
    """A random untied float32 model with a real tokenizer."""
    params = jax.device_get(init_params(TINY, jax.random.key(0)))
    return ModelFiles(ParamsReader(params, TINY), TINY, tiny_tokenizer_folder, {"source": "test"})


@pytest.fixture(scope="session")
def tiny_sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.model of 60 pieces."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    text = folder / "text"
    text.write_text("def add(a, b):\n    return a + b\nfor value in values: print(value)\n" * 20)
    SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), vocab_size=60, model_type="bpe", minloglevel=2
    )
    return folder / "tokenizer.model"


@pytest.fixture
def save_like_torch() -> Callable[[Path, dict[str, np.ndarray]], None]:
    """Writes float32 tensors to a file as torch.save does, without torch."""
    return _save_like_torch


def _save_like_torch(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes what torch.save would: a pickle that names torch's functions, and the tensors' bytes beside it."""

    class Storage:
        def __init__(self, key: str, size: int) -> None:
            self.key, self.size = key, size

    class Pickler(pickle._Pickler):  # the Python one: it asks for the names of globals
        def persistent_id(self, item: Any) -> Any:
            return (
                ("storage", Name("torch", "FloatStorage"), item.key, "cpu", item.size)
                if type(item) is Storage
                else None
            )

        def save(self, item: Any, save_persistent_id: bool = True) -> None:
            if isinstance(item, Name):
                self.write(b"c" + f"{item.module}\n{item.name}\n".encode())
            else:
                super().save(item, save_persistent_id)

    class Name:
        def __init__(self, module: str, name: str) -> None:
            self.module, self.name = module, name

        def __call__(self) -> None: ...

    class Tensor:
        def __init__(self, key: str, tensor: np.ndarray) -> None:
            self.key, self.tensor = key, tensor

        def __reduce__(self) -> Any:
            strides = tuple(stride // 4 for stride in self.tensor.strides)
            arguments = (Storage(self.key, self.tensor.size), 0, self.tensor.shape, strides, False, {})
            return Name("torch._utils", "_rebuild_tensor_v2"), arguments

    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("archive/data.pkl", "w") as file:
            Pickler(file, 2).dump(
                {name: Tensor(str(key), tensor) for key, (name, tensor) in enumerate(tensors.items())}
            )
        for key, tensor in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{key}", tensor.tobytes())
