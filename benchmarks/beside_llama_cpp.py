"""The model's GGUF in llama.cpp, the CPU's best known figure; its weights are as narrow as the file says.

The package is no dependency: pip install llama-cpp-python==0.3.36 builds it, with a C++ compiler, in about ten minutes.
"""

import itertools
import os
import time
from pathlib import Path

from llama_cpp import Llama


class LlamaCpp:
    """A model on the CPU, with all its cores, one sequence at a time."""

    def __init__(self, gguf: Path, positions: int) -> None:
        """Loads the file; `positions` are enough for a prompt with its answer."""
        self._model = Llama(
            str(gguf), n_ctx=positions, n_threads=os.cpu_count(), n_threads_batch=os.cpu_count(), verbose=False
        )

    def seconds(self, prompt: list[int], new_tokens: int) -> float:
        """Returns the seconds that exactly `new_tokens` greedy tokens take."""
        self._model.reset()
        began = time.perf_counter()
        answer = list(itertools.islice(self._model.generate(prompt, temp=0.0), new_tokens))
        assert len(answer) == new_tokens
        return time.perf_counter() - began
