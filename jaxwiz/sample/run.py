"""Answers a benchmark's tasks or a file of prompts: writes `completions.jsonl`, and EvalPlus' format, `samples.jsonl`.

All answers (task x sample) are sorted by prompt length and cut into batches: a function of the config alone, never of
what an earlier run finished. Each finished batch is one file under `batches/`, whole or absent, so a killed run goes on
with the batches that are missing, generates no finished one again, and ends with the same file as an uninterrupted run.
The engine refills its slots across batches. Batches are also what nodes of a cluster are given; this process makes the
prompts and takes the code out of the answers.
"""

import collections
import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from jaxwiz import files
from jaxwiz.config import Finding
from jaxwiz.console import progress, say
from jaxwiz.fanout import LocalEngine, check_engine, fan_out
from jaxwiz.problems.extract import extract
from jaxwiz.records import Completion, read_records, write_records
from jaxwiz.sample.config import SampleConfig
from jaxwiz.sample.prompts import Prompter
from jaxwiz.sample.questions import Question, read_questions, stops_of
from jaxwiz.sample.requests import Request

if TYPE_CHECKING:
    from jaxwiz.sample.answer import AnsweredBatch


class SampleError(files.UserError):
    """Tasks that this model or machine cannot answer as configured."""


@dataclasses.dataclass
class _Speed:
    """Tokens generated in this run and the seconds it took each process, compilation included."""

    tokens: int = 0
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        self.tokens += tokens
        self.seconds += seconds

    def __str__(self) -> str:
        return f"{self.tokens / max(self.seconds, 1e-9):.0f} tokens/s"


def run(config: SampleConfig) -> Path:
    """Writes completions.jsonl, samples.jsonl and summary.txt to `config.out` and returns it; continues a killed run.

    Raises:
      UserError: a prompt with its answer exceeds the model's positions, or checkpoint, template or tasks are unusable.
    """
    from jaxwiz.sample.answer import answer_batches, engine_settings

    prompter = _prompter(config)
    questions = read_questions(config, prompter)
    _require_fit(config, questions)
    batches = _batches(questions, config.batch_size)
    paths = [config.out / "batches" / f"{number:05d}.jsonl" for number in range(len(batches))]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    speed = _Speed()
    longest = max(len(question.prompt) for question in questions)
    if missing:
        say(f"sample: {len(questions)} answers in {len(batches)} batches; loading {config.checkpoint}")
        answered_before = len(questions) - sum(len(batches[number]) for number in missing)
        with progress("sample", len(questions), "answers", start=answered_before) as advance:

            def show(tokens: int, finished: int, seconds: float) -> None:
                speed.add(tokens, seconds)
                advance(finished, str(speed))

            here = isinstance(config.engine, LocalEngine)
            settings = engine_settings(config, longest + config.sampling.max_new_tokens, draws_ahead=here)
            work = functools.partial(answer_batches, settings, on_progress=show if here else None)
            asked = _requests(config, prompter, {number: batches[number] for number in missing})
            for number, answered in fan_out(config.engine, work, asked.items()):
                write_records(paths[number], _completions(config, batches[number], answered))
                if not here:  # nodes show nothing while a batch is under way
                    show(
                        sum(len(answer.tokens) for answer in answered.answers), len(answered.answers), answered.seconds
                    )
    completions = [completion for path in paths for completion in read_records(path, Completion)]
    order = {(question.task_id, question.sample): place for place, question in enumerate(questions)}
    completions.sort(key=lambda completion: order[completion.task_id, completion.sample])
    write_records(config.out / "completions.jsonl", completions)
    _write_evalplus_samples(config.out / "samples.jsonl", questions, completions)
    files.write_text(config.out / "summary.txt", _summary(config, completions, speed))
    return config.out


def check(config: SampleConfig) -> list[Finding]:
    """Returns what can be known before sampling: prompts fit the model, weights and cache fit memory."""
    try:
        questions = read_questions(config, _prompter(config))
        _require_fit(config, questions)
    except files.UserError as error:
        return [Finding("error", str(error))]
    longest = max(len(question.prompt) for question in questions)
    shortest = min(len(question.prompt) for question in questions)
    findings = [Finding("ok", f"{len(questions)} answers, prompts of {shortest} to {longest} tokens")]
    if config.samples_per_task > 1 and config.sampling.temperature == 0:
        findings.append(
            Finding(
                "warning",
                f"samples_per_task = {config.samples_per_task} at sampling.temperature = 0: all samples of a task will "
                "be equal; set samples_per_task=1 or a temperature",
            )
        )
    return findings + (check_engine(config.engine) or _check_memory(config, longest))


def _check_memory(config: SampleConfig, longest: int) -> list[Finding]:
    from jaxwiz.checkpoint.weights import load_model_config
    from jaxwiz.model.pages import token_bytes
    from jaxwiz.model.params import param_bytes
    from jaxwiz.sample.answer import cache_dtype
    from jaxwiz.sharding.devices import device_memory_bytes

    model = load_model_config(config.checkpoint)
    weights = param_bytes(model, config.dtype)
    tokens = config.batch_size * (longest + config.sampling.max_new_tokens)
    cache = tokens * token_bytes(model, cache_dtype(config.dtype, config.cache_dtype))
    limit = device_memory_bytes()
    text = f"weights {weights / 2**30:.2f} GiB + cache {cache / 2**30:.2f} GiB of {limit / 2**30:.1f} GiB"
    if limit and weights + cache > limit and config.mesh is None:
        return [Finding("error", f"batch_size = {config.batch_size}: {text}; lower batch_size or max_new_tokens")]
    return [Finding("ok", text)]


def _prompter(config: SampleConfig) -> Prompter:
    from jaxwiz.checkpoint.weights import tokenizer_folder
    from jaxwiz.text.tokenizer import load_tokenizer

    return Prompter(load_tokenizer(tokenizer_folder(config.checkpoint)), config.template)


def _require_fit(config: SampleConfig, questions: list[Question]) -> None:
    from jaxwiz.checkpoint.weights import load_model_config

    positions = load_model_config(config.checkpoint).context_length
    longest = max(questions, key=lambda question: len(question.prompt))
    needed = len(longest.prompt) + config.sampling.max_new_tokens
    if needed > positions:
        raise SampleError(
            f"sampling.max_new_tokens = {config.sampling.max_new_tokens}: with the prompt of {longest.task_id} "
            f"({len(longest.prompt)} tokens) that is {needed} positions, and the model has {positions}; lower it to "
            f"{positions - len(longest.prompt)}, or leave the task out with benchmark.ids"
        )


def _batches(questions: list[Question], batch_size: int) -> list[list[Question]]:
    """Returns the questions in batches of like prompt length, shortest first."""
    ordered = sorted(questions, key=lambda question: len(question.prompt))  # stable: ties stay in task order
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def _write_evalplus_samples(path: Path, questions: list[Question], completions: list[Completion]) -> None:
    """Writes the answers as EvalPlus and other harnesses read them: a whole program a line."""
    problems = {question.task_id: question.problem for question in questions}
    with files.atomic_file(path) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        for completion in completions:
            problem = problems[completion.task_id]
            solution = problem.solution(completion.completion) if problem else completion.completion
            file.write(json.dumps({"task_id": completion.task_id, "solution": solution}) + "\n")


def _requests(config: SampleConfig, prompter: Prompter, batches: dict[int, list[Question]]) -> dict[int, list[Request]]:
    """Returns what the model is asked, by number of batch."""
    stops = stops_of(config, prompter)
    return {number: [_request(config, question, stops) for question in batch] for number, batch in batches.items()}


def _completions(config: SampleConfig, batch: list[Question], answered: "AnsweredBatch") -> list[Completion]:
    return [
        Completion(
            task_id=question.task_id,
            sample=question.sample,
            prompt=question.text,
            raw=answer.text,
            completion=extract(answer.text, question.problem, config.extraction) if question.problem else answer.text,
            finish_reason=answer.finish_reason,
            new_tokens=len(answer.tokens),
        )
        for question, answer in zip(batch, answered.answers, strict=True)
    ]


def _request(config: SampleConfig, question: Question, stops: tuple[str, ...]) -> Request:
    sampling = config.sampling
    identity = f"{sampling.seed}:{question.task_id}:{question.sample}"
    return Request(
        question.prompt,
        sampling.max_new_tokens,
        **sampling.request_fields(),
        seed=int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big"),
        stop=stops,
    )


def _summary(config: SampleConfig, completions: list[Completion], speed: _Speed) -> str:
    reasons = collections.Counter(completion.finish_reason for completion in completions)
    tokens = sum(completion.new_tokens for completion in completions)
    how = "greedy" if config.sampling.temperature == 0 else f"temperature {config.sampling.temperature}"
    lines = [
        f"answers: {len(completions)} ({config.samples_per_task} a task, {how}, template {config.template})",
        f"new tokens: {tokens}, mean {tokens / len(completions):.1f} an answer",
        f"ended by: {', '.join(f'{reason} {count}' for reason, count in sorted(reasons.items()))}",
    ]
    if speed.tokens:
        lines.append(f"speed: {speed} at batch {config.batch_size}, compilation included")
    return "\n".join(lines) + "\n"
