"""A generator behind OpenAI's Batch API: files of requests, answered within a day, at half the price.

write -> send -> ask for the batch -> look at it until it ends -> fetch. Every step is on disk before the next, so a run
that was killed goes on where it was, and no request is put into two batches while one of them may still answer it. A
batch that expires has answered some; the others, and those that failed in a way that may pass, go into another batch.
All batches of a phase are under way together, up to `max_open_files`.
"""

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import openai

from jaxwiz.console import say
from jaxwiz.llm.batch_files import URL, Batch, BatchStore, request_line, split
from jaxwiz.llm.chat import ChatEndpoint, PassingError, parse_json
from jaxwiz.llm.config import OpenAIBatchBackend
from jaxwiz.llm.key import read_key
from jaxwiz.llm.protocol import (
    Activity,
    GenerationError,
    GenerationRequest,
    GenerationResult,
    OnResults,
)
from jaxwiz.llm.recording import request_key
from jaxwiz.llm.retry import backoff_s, spread_s

Answer = TypeVar("Answer")
ENDED = frozenset({"completed", "expired", "failed", "cancelled"})
MARK = "jaxwiz"  # the metadata field that holds a batch's mark
QUEUE_FULL = "token_limit_exceeded"  # why a batch failed that must wait until fewer tokens of the account's are queued


class OpenAIBatchGenerator:
    """Answers through batches that lie in `folder`.

    Attributes:
      name: the model's name, so that an answer counts the same however it was asked for.
      activity: see `TextGenerator`; what lies in a batch is in flight.
    """

    def __init__(self, config: OpenAIBatchBackend, folder: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        self.name = config.model
        self.activity = Activity()
        self._config = config
        self._sleep = sleep
        key = read_key(config)
        self._endpoint = ChatEndpoint(config, key)
        self._store = BatchStore(folder)
        self._client = openai.OpenAI(
            base_url=config.base_url, api_key=key.reveal(), timeout=config.timeout_s, max_retries=0
        )

    def generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        """Answers all requests; see `TextGenerator`.

        An error, `StopAskingError` included, does not wait for batches under way, which may take a day: they stay with
        the server, and the next run that asks the same collects them.
        """
        phase = _Phase(self.name, requests)
        batches = phase.take_over(self._store.newest(self._config.base_url))
        is_full = False
        while phase.unanswered:
            if not is_full:
                batches += self._new_batches(phase, self._config.max_open_files - len(batches))
            self.activity.in_flight = len(phase.owners)
            ended = [batch for batch in batches if self._has_ended(batch)]
            for batch in ended:
                batches.remove(batch)
                self._report(batch, phase, on_results)
            if any(batch.state.status == QUEUE_FULL for batch in ended):
                is_full = bool(batches)  # until another one ends
                if not batches:
                    self._sleep(self._config.poll_s)
            elif ended:
                is_full = False
            else:
                self._sleep(self._config.poll_s)
        self.activity.in_flight = 0

    def _new_batches(self, phase: "_Phase", most: int) -> list[Batch]:
        """Returns up to `most` new batches, on disk and not sent, of the requests that are in none."""
        lines = (
            request_line(key, self._endpoint.body_of(request))
            for key, request in phase.unanswered.items()
            if key not in phase.owners
        )
        parts = split(lines, self._config.requests_per_file, self._config.megabytes_per_file * 1_000_000)
        batches = [self._store.add(self._config.base_url, part) for part in itertools.islice(parts, max(0, most))]
        phase.owners.update({key: batch for batch in batches for key in batch.keys})
        return batches

    def _has_ended(self, batch: Batch) -> bool:
        """Moves a batch one step on; says whether what came back lies in its folder.

        Raises:
          GenerationError: the batch failed as a whole or was cancelled; what came back lies in its folder, too.
        """
        state = batch.state
        if not state.status and not state.batch_id:
            self._submit(batch)
        elif not state.status:
            answer = self._call(lambda: _checked(self._client.batches.retrieve(state.batch_id), "status"))
            if answer.status in ENDED:
                output, errors = self._fetched(answer.output_file_id), self._fetched(answer.error_file_id)
                faults = (answer.errors.data or []) if answer.errors else []
                is_full = answer.status == "failed" and any(fault.code == QUEUE_FULL for fault in faults)
                batch.keep(QUEUE_FULL if is_full else answer.status, output, errors)
                say(f"batch {state.batch_id}: {state.status}")
                self._examine_end(batch, [f"{fault.code}: {fault.message}" for fault in faults])
        return bool(state.status)

    def _examine_end(self, batch: Batch, faults: list[str]) -> None:
        name = f"{self._endpoint.where}: batch {batch.state.batch_id} ({batch.folder})"
        if batch.state.status == "cancelled":
            raise GenerationError(f"{name} was cancelled; what it answered is kept, run again to send the rest")
        if batch.state.status == "failed":
            reasons = self._endpoint.readable("; ".join(faults[:3]))
            raise GenerationError(f"{name} failed: {reasons or 'no reason given'}; correct it and run again")

    def _submit(self, batch: Batch) -> None:
        """Sends a batch's file and asks for the batch, each only if it isn't known to have been done."""
        state = batch.state
        may_exist = bool(state.file_id)  # a killed run may have asked for the batch and not heard
        if not state.file_id:
            path = batch.folder / "requests.jsonl"
            sent = self._call(lambda: _checked(self._client.files.create(file=path, purpose="batch"), "id"))
            state.file_id = sent.id
            batch.save()

        def ask() -> Any:
            nonlocal may_exist
            existing = self._find(state.mark) if may_exist else None
            may_exist = True
            return existing or _checked(
                self._client.batches.create(
                    input_file_id=state.file_id, endpoint=URL, completion_window="24h", metadata={MARK: state.mark}
                ),
                "id",
            )

        state.batch_id = self._call(ask).id
        batch.save()
        say(f"batch {state.batch_id}: {len(batch.keys)} requests sent")

    def _find(self, mark: str) -> Any:
        """Returns the server's batch with this mark, or None."""
        batches = self._client.batches.list(limit=100)
        return next((batch for batch in batches if (batch.metadata or {}).get(MARK) == mark), None)

    def _fetched(self, file_id: str | None) -> bytes:
        return self._call(lambda: self._client.files.content(file_id).content) if file_id else b""

    def _report(self, batch: Batch, phase: "_Phase", on_results: OnResults) -> None:
        """Reports what a batch answered; what it didn't is free for another batch."""
        fault: GenerationError | None = None
        results: dict[int, GenerationResult] = {}
        reasons: dict[str, str] = {}
        for key, reply in batch.replies():
            if phase.owners.get(key) is not batch:
                continue
            try:
                result = self._result_of(phase.unanswered[key], reply)
            except PassingError as passing:
                reasons[key] = str(passing)
            except GenerationError as error:
                fault = fault or error
            else:
                results.update(dict.fromkeys(phase.positions[key], result))
                del phase.unanswered[key], phase.owners[key]
        failed = phase.release(batch)
        self.activity.retries += len(failed)
        if results:
            on_results(results)
        if fault:
            raise fault
        if gave_up := next((key for key in failed if phase.failures[key] > self._config.max_retries), None):
            reason = reasons.get(gave_up, f"the batch {batch.state.status} without an answer to it")
            raise GenerationError(
                f"{self._endpoint.where}: gave up a request after {phase.failures[gave_up]} batches: {reason}; what "
                "was answered is kept, run again to continue"
            )

    def _result_of(self, request: GenerationRequest, reply: dict[str, Any]) -> GenerationResult:
        response, error = reply.get("response"), reply.get("error")
        if isinstance(response, dict) and isinstance(response.get("status_code"), int):
            return self._endpoint.result_of(request, response["status_code"], response.get("body"), {}, time.time())
        code = error.get("code") if isinstance(error, dict) else None
        raise PassingError(self._endpoint.readable(f"the batch says {code or 'nothing'}"))

    def _call(self, call: Callable[[], Answer]) -> Answer:
        """Returns what one HTTP request brings, trying again what may pass."""
        for attempt in range(self._config.max_retries + 1):
            try:
                return self._called(call)
            except PassingError as fault:
                reason = self._endpoint.readable(str(fault))
                if attempt < self._config.max_retries:
                    asked_s = fault.wait_s
                    jitter = random.random()
                    self._sleep(backoff_s(attempt, jitter) if asked_s is None else spread_s(asked_s, jitter))
        raise GenerationError(
            f"{self._endpoint.where}: gave up after {self._config.max_retries + 1} attempts: {reason}; batches under "
            "way stay with the server, run again to continue"
        )

    def _called(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except openai.APIStatusError as error:
            response = error.response
            body = parse_json(response.content)
            raise self._endpoint.fault_of(response.status_code, body, response.headers, time.time()) from None
        except openai.APITimeoutError:
            raise PassingError(f"no answer within {self._config.timeout_s} s") from None
        except openai.APIConnectionError as error:
            raise PassingError(f"connection failed ({error.__cause__ or error})") from None
        except (openai.OpenAIError, ValueError) as error:
            raise PassingError(f"the answer makes no sense ({type(error).__name__})") from None


class _Phase:
    """What one `generate_all` still has to answer.

    Attributes:
      unanswered: requests by key, in their order; equal ones are asked once.
      positions: key to where its requests stand in the list.
      owners: key to the batch that may still answer it.
      failures: how many batches of this phase did not answer a key.
    """

    def __init__(self, model: str, requests: Sequence[GenerationRequest]) -> None:
        self.unanswered: dict[str, GenerationRequest] = {}
        self.positions: dict[str, list[int]] = {}
        self.owners: dict[str, Batch] = {}
        self.failures: Counter[str] = Counter()
        self._old: set[Path] = set()
        for index, request in enumerate(requests):
            key = request_key(model, request)
            self.unanswered[key] = request
            self.positions.setdefault(key, []).append(index)

    def take_over(self, known: Mapping[str, Batch]) -> list[Batch]:
        """Returns the batches of earlier runs that answer, have answered or failed to answer some of the requests."""
        self.owners = {key: known[key] for key in self.unanswered if key in known}
        batches = list(dict.fromkeys(self.owners.values()))
        self._old = {batch.folder for batch in batches if batch.state.status}
        return batches

    def release(self, batch: Batch) -> list[str]:
        """Returns the keys that a batch was to answer and didn't; they are free for another one."""
        keys = [key for key, owner in self.owners.items() if owner is batch]
        for key in keys:
            del self.owners[key]
            self.failures[key] += batch.folder not in self._old
        return keys


def _checked(answer: Answer, field: str) -> Answer:
    """Returns the answer if it has what it must, else it counts as one that makes no sense."""
    if not isinstance(getattr(answer, field, None), str):
        raise PassingError(f"an answer without {field!r}")
    return answer
