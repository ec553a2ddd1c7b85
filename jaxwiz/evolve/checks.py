"""The eliminations that need more than the texts at hand: benchmarks, all earlier rows, and a sandbox.

Each looks at all candidates of a phase together and returns their faults in order, "" for what passes. What the config
does not ask for is neither loaded nor imported.
"""

import hashlib
import re
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxwiz.clean.decontaminate import Decontaminator
from jaxwiz.clean.tasks import load_tasks
from jaxwiz.clean.texts import Text, normalise, words_of
from jaxwiz.evolve.config import EliminateConfig
from jaxwiz.evolve.journal import Journal
from jaxwiz.llm.protocol import GenerationResult
from jaxwiz.llm.recording import RecordedAnswer
from jaxwiz.records import EvolvedTask

if TYPE_CHECKING:
    from jaxwiz.clean.minhash import Signer
    from jaxwiz.sandbox import Outcome

CONTAMINATED = "contaminated"
NEAR_DUPLICATE = "near_duplicate"
DOES_NOT_PARSE = "answer_does_not_parse"
DOES_NOT_RUN = "answer_does_not_run"
DOES_NOT_END = "answer_does_not_end"

MEMORY_BYTES = 1 << 30
JOURNALED_TOGETHER = 256  # outcomes of programs
_PYTHON_FENCE = re.compile(
    r"^[ \t]*```[ \t]*(?:python|py|python3)[ \t]*\r?\n(.*?)(?:^[ \t]*```|\Z)", re.M | re.S | re.I
)
# What says nothing about an answer: that its surroundings lack a library, a file, a network or input.
_NOT_ITS_FAULT = re.compile(
    r"(ModuleNotFound|Import|EOF|OS|FileNotFound|Permission|NotADirectory|Connection\w*|gai|URL|Timeout)Error\b"
    r"|gaierror|NameError: name '(exit|quit)'"
)


class Checks:
    """What a run checks candidates with; a context manager, since signatures of rows lie in a file of its own."""

    def __init__(
        self, config: EliminateConfig, folder: Path | None = None, journal: Journal | None = None, model: str = ""
    ) -> None:
        """Loads what `config` asks for.

        Args:
          config: what to eliminate.
          folder: where the file of signatures is made; None: the system's folder for temporary files.
          journal: what running an answer has shown is kept here; None: nowhere.
          model: name of the generator whose journal it is.

        Raises:
          UserError: a benchmark can't be had.
        """
        self._config = config
        self._journal, self._model = journal, model
        _, tasks = load_tasks(config.decontaminate)
        self._benchmarks = Decontaminator(tasks) if tasks else None
        self._near = NearRows(config, folder) if "near_duplicate" in config.detectors else None

    def is_contaminated(self, task: EvolvedTask) -> bool:
        """Says whether the texts of a task hold a benchmark's task."""
        if self._benchmarks is None:
            return False
        return self._benchmarks.find(Text(task.id, f"{task.instruction}\n{task.input}", task.output)) is not None

    def faults_of_running(self, answers: Sequence[str]) -> list[str]:
        """Returns for each answer whether its Python doesn't parse, fails, or doesn't end; without the detector "".

        An answer's Python is its blocks marked as such, together, or the first that parses if together they don't. An
        answer without one has nothing to run. A module, a file, input or a network that is missing is no fault.

        Raises:
          SandboxError: programs can't be confined here.
        """
        if "runs" not in self._config.detectors:
            return [""] * len(answers)
        codes = [python_of(answer) for answer in answers]
        verdicts = self._verdicts({code for code in codes if code})
        return [DOES_NOT_PARSE if code is None else verdicts.get(code, "") for code in codes]

    def _verdicts(self, codes: Collection[str]) -> dict[str, str]:
        """Returns the fault of each program; one that the journal knows isn't run again, since luck may have a say."""
        keys = {code: hashlib.sha256(f"run {self._config.timeout_s}\0{code}".encode()).digest() for code in codes}
        journal = self._journal
        known = {code: journal[key].text for code, key in keys.items() if key in journal} if journal is not None else {}
        missing = sorted(codes - known.keys())
        for start in range(0, len(missing), JOURNALED_TOGETHER):
            ran = self._run(missing[start : start + JOURNALED_TOGETHER])
            if journal is not None:
                journal.append(
                    [
                        RecordedAnswer(keys[code].hex(), self._model, "run", GenerationResult(fault, "stop", 0, 0))
                        for code, fault in sorted(ran.items())
                    ]
                )
            known |= ran
        return known

    def _run(self, codes: Sequence[str]) -> dict[str, str]:
        from jaxwiz.sandbox import Limits, Program, run_programs

        limits = Limits(timeout_s=self._config.timeout_s, memory_bytes=MEMORY_BYTES)
        programs = ((code, Program(candidate=code)) for code in codes)
        outcomes = run_programs(programs, limits, self._config.workers, self._config.unsafe_no_sandbox)
        return {code: _fault_of(outcome) for code, outcome in outcomes}

    def near_duplicates(self, rows: Sequence[EvolvedTask]) -> list[bool]:
        """Says of each row whether it nearly repeats a kept one, or one before it here; without the detector False.

        Those that don't are kept from now on.
        """
        return self._near.add(rows) if self._near else [False] * len(rows)

    def __enter__(self) -> "Checks":
        return self

    def __exit__(self, *error: object) -> None:
        if self._near:
            self._near.close()


class NearRows:
    """The signatures of all kept rows, in a file; a row is its instruction and answer together, as in cleaning."""

    def __init__(self, config: EliminateConfig, folder: Path | None) -> None:
        self._config = config.near
        self._folder = tempfile.TemporaryDirectory(dir=folder, prefix=".near-")
        self._path = Path(self._folder.name) / "signatures.u32"
        self._path.touch()
        self._rows = 0
        self._signer: Signer | None = None

    def add(self, rows: Sequence[EvolvedTask]) -> list[bool]:
        """Returns which rows nearly repeat a kept one or one before them here, and keeps the others."""
        if not rows:
            return []
        import numpy as np

        from jaxwiz.clean.minhash import Signer
        from jaxwiz.clean.near import NONE, find_near

        self._signer = self._signer or Signer(self._config)
        with open(self._path, "ab") as file:
            for row in rows:
                text = normalise(f"{row.instruction}\n{row.input}\n{row.output}")
                file.write(self._signer.sign(words_of(text)).astype(np.uint32).tobytes())
        count = self._rows + len(rows)
        near = find_near(self._path, count, np.zeros(count, bool), self._config, Path(self._folder.name))
        repeats = [bool(match != NONE) for match in near.match[self._rows :]]
        self._drop(repeats)
        return repeats

    def _drop(self, repeats: Sequence[bool]) -> None:
        """Takes the signatures of repeating rows, which end the file, out of it."""
        row_bytes = 4 * self._config.permutations
        with open(self._path, "r+b") as file:
            kept = self._rows
            for number, repeat in enumerate(repeats, start=self._rows):
                if not repeat:
                    file.seek(number * row_bytes)
                    signature = file.read(row_bytes)
                    file.seek(kept * row_bytes)
                    file.write(signature)
                    kept += 1
            file.truncate(kept * row_bytes)
        self._rows = kept

    def close(self) -> None:
        """Removes the file."""
        self._folder.cleanup()


def _fault_of(outcome: "Outcome") -> str:
    if outcome.status == "timed_out":
        return DOES_NOT_END
    if outcome.status == "passed" or outcome.reason == "exit" or _NOT_ITS_FAULT.match(outcome.detail):
        return ""
    return DOES_NOT_RUN


def python_of(answer: str) -> str | None:
    """Returns the Python of an answer's blocks marked as such, "" if it has none, None if none of it parses."""
    from jaxwiz.problems import syntax

    blocks = [match.group(1) for match in _PYTHON_FENCE.finditer(answer)]
    for text in ["\n".join(blocks), *blocks] if blocks else []:
        try:
            syntax.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return text
    return None if blocks else ""
