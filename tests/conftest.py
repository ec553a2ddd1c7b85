"""Fixtures that tests of several packages share."""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import EXECUTABLE, Chromium
from tests.ray_cluster import TwoNodes

# Enough Python for a few dozen merges: the tokenizer has the 256 bytes, 3 control tokens and some real words.
PYTHON_LINES = (
    "def add(first, second):\n    return first + second\n",
    "for index, value in enumerate(values):\n    if value is None:\n        continue\n    print(index, value)\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, item):\n"
    "        self.items.append(item)\n",
    "Write a Python function that returns the sum of all values in a list.\n",
    "import sys\nwith open(sys.argv[1]) as file:\n    lines = [line.strip() for line in file]\n",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n\n\n### Response:",
)
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def pytest_configure(config: pytest.Config) -> None:
    """Lets all processes of a test run, those that tests start included, compile each XLA program once between them."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="jaxwiz-compiled-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"


@pytest.fixture(scope="session")
def tiny_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level BPE of at most 384 tokens, in the layout of SmolLM2's.

    Control tokens: 0 <|endoftext|> (pad), 1 <|im_start|> (bos, not added by itself), 2 <|im_end|> (eos).
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(PYTHON_LINES * 4, trainer)
    folder = tmp_path_factory.mktemp("tiny-tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "add_bos_token": False,
        "model_max_length": 2048,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    return folder


@pytest.fixture(scope="session")
def cluster_address() -> Iterator[str]:
    """The address of a Ray cluster of two nodes, which tests leave as it is."""
    pytest.importorskip("ray", reason="needs Ray: make test-ray")
    cluster = TwoNodes()
    yield cluster.address
    cluster.stop()


@pytest.fixture
def breakable_cluster() -> Iterator[TwoNodes]:
    """A Ray cluster of two nodes, of which a test may kill the second."""
    pytest.importorskip("ray", reason="needs Ray: make test-ray")
    cluster = TwoNodes()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A headless browser; tests that need one are skipped where there is none."""
    if EXECUTABLE is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    browser = Chromium(tmp_path_factory.mktemp("chromium") / "profile")
    yield browser
    browser.close()
