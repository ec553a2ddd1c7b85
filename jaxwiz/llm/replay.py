"""A generator that answers from a recording, so that a run can be repeated without model, network or money."""

from collections.abc import Sequence
from pathlib import Path

from jaxwiz.llm.protocol import Activity, GenerationError, GenerationRequest, OnResults
from jaxwiz.llm.recording import read_recording, request_key


class ReplayGenerator:
    """Answers from a recording; a request that was not recorded is an error, never a guess.

    Attributes:
      name: that of the recorded generator, so that keys, and with them journals, agree.
      ran: what running programs has shown.
    """

    def __init__(self, path: Path) -> None:
        answers = read_recording(path).answers
        models = sorted({answer.model for answer in answers})
        if len(models) != 1:
            raise GenerationError(f"{path}: a recording must hold answers of one model; this holds {models or 'none'}")
        self.name = models[0]
        self.activity = Activity()
        self._path = path
        self.ran = [answer for answer in answers if answer.kind == "run"]
        self._results = {answer.key: answer.result for answer in answers}

    def generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        """Answers all requests at once; see `TextGenerator`."""
        keys = [request_key(self.name, request) for request in requests]
        on_results({index: self._results[key] for index, key in enumerate(keys) if key in self._results})
        missing = [request for request, key in zip(requests, keys, strict=True) if key not in self._results]
        if missing:
            raise GenerationError(
                f"{self._path}: {len(missing)} of {len(requests)} requests were not recorded, first the one beginning "
                f"{missing[0].prompt[:60]!r} with seed {missing[0].seed}; replay needs the config, seeds and prompts "
                "of the recorded run"
            )
