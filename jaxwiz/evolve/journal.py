"""The journal: every answered call is on the disk before it is used, so a killed run asks nothing twice.

One JSON line for each answered call, appended and flushed to the disk once for all that arrived together. A kill can
tear the last line off; it is cut away when the journal is opened, and its call is asked again.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from jaxwiz import files
from jaxwiz.console import progress
from jaxwiz.llm.protocol import GenerationRequest, GenerationResult, TextGenerator
from jaxwiz.llm.recording import RecordedAnswer, read_recording, request_key


class Journal:
    """Answers by key, on disk; a context manager that closes its file.

    Attributes:
      results: every durable answer.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        recording = read_recording(path)
        self.results: dict[str, GenerationResult] = {answer.key: answer.result for answer in recording.answers}
        self._file = open(path, "r+b")  # noqa: SIM115 - closed by __exit__
        self._file.truncate(recording.whole_bytes)
        self._file.seek(recording.whole_bytes)

    def append(self, answers: Sequence[RecordedAnswer]) -> None:
        """Makes `answers` durable, then known."""
        self._file.write(b"".join(answer.to_line() for answer in answers))
        files.flush_to_disk(self._file)
        self.results.update({answer.key: answer.result for answer in answers})

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


@dataclasses.dataclass
class Usage:
    """What the calls of one kind took, whether they were asked now or in an earlier, interrupted run."""

    calls: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0


class JournaledGenerator:
    """A generator that answers from the journal what it holds, and asks and journals the rest.

    Attributes:
      usage: by kind of call, in order of first use.
      sent: how many calls went to the generator in this process.
    """

    def __init__(self, generator: TextGenerator, journal: Journal) -> None:
        self.usage: dict[str, Usage] = {}
        self.sent = 0
        self._generator = generator
        self._journal = journal

    def ask(self, kind: str, requests: Sequence[GenerationRequest], title: str) -> list[GenerationResult]:
        """Returns the answers in the order of `requests`.

        Args:
          kind: what the calls are for: "evolve", "judge" or "answer".
          requests: the questions; equal ones are asked once.
          title: what the progress display says.
        """
        model = self._generator.name
        keys = [request_key(model, request) for request in requests]
        missing = {
            key: request for key, request in zip(keys, requests, strict=True) if key not in self._journal.results
        }
        if missing:
            self._send(kind, missing, title)
        results = [self._journal.results[key] for key in keys]
        usage = self.usage.setdefault(kind, Usage())
        for result in dict(zip(keys, results, strict=True)).values():
            usage.calls += 1
            usage.prompt_tokens += result.prompt_tokens
            usage.new_tokens += result.new_tokens
        return results

    def _send(self, kind: str, missing: Mapping[str, GenerationRequest], title: str) -> None:
        keys = list(missing)
        with progress(title, total=len(keys), unit="calls") as advance:

            def keep(results: Mapping[int, GenerationResult]) -> None:
                self._journal.append(
                    [
                        RecordedAnswer(keys[index], self._generator.name, kind, result)
                        for index, result in results.items()
                    ]
                )
                self.sent += len(results)
                advance(len(results))

            self._generator.generate_all(list(missing.values()), keep)
