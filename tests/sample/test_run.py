"""The sample stage: completions in task order, a killed run that continues to the same file, findings before a run."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxwiz.files import UserError
from jaxwiz.problems.config import HumanEvalConfig
from jaxwiz.records import Completion, read_records, write_records
from jaxwiz.sample import run as stage
from jaxwiz.sample.config import PromptsConfig, SampleConfig, SamplingConfig
from jaxwiz.sample.engine import Engine
from jaxwiz.sample.requests import Request

TASKS = [f"Tiny/{number}" for number in range(5)]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> HumanEvalConfig:
    """Five tasks whose order is not that of their prompts' lengths."""
    path = tmp_path_factory.mktemp("benchmark") / "tiny.jsonl"
    rows = [
        {
            "task_id": task,
            "prompt": f"def task_{number}(x):\n" + "    # more\n" * (3 * (number * 3 % 5)),
            "test": "def check(candidate):\n    pass\n",
            "entry_point": f"task_{number}",
            "canonical_solution": "    return x\n",
        }
        for number, task in enumerate(TASKS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return HumanEvalConfig(path=path)


@pytest.fixture
def config(benchmark: HumanEvalConfig, checkpoint: Path, tmp_path: Path) -> SampleConfig:
    return SampleConfig(
        out=tmp_path / "out",
        checkpoint=checkpoint,
        benchmark=benchmark,
        template="chatml",
        prompt_style="chat",
        samples_per_task=2,
        sampling=SamplingConfig(temperature=0.8, max_new_tokens=10, seed=1),
        batch_size=4,
    )


def test_completions_are_in_task_order_and_samples_differ(config: SampleConfig):
    assert stage.run(config) == config.out
    completions = list(read_records(config.out / "completions.jsonl", Completion))
    assert [(one.task_id, one.sample) for one in completions] == [(task, n) for task in TASKS for n in (0, 1)]
    assert completions[0].raw != completions[1].raw
    assert completions[0].prompt.startswith("<|im_start|>user\n")
    assert all(1 <= one.new_tokens <= 10 for one in completions)
    assert "answers: 10" in (config.out / "summary.txt").read_text()
    samples = [json.loads(line) for line in (config.out / "samples.jsonl").read_text().splitlines()]
    assert [sample["task_id"] for sample in samples] == [one.task_id for one in completions]  # as EvalPlus reads them
    assert samples[0].keys() == {"task_id", "solution"}
    assert samples[0]["solution"].startswith("def task_0(x):\n")
    assert samples[0]["solution"].endswith(completions[0].completion)


def test_a_killed_run_continues_to_the_same_file_and_generates_nothing_twice(
    config: SampleConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    whole = (stage.run(config) / "completions.jsonl").read_bytes()
    interrupted = dataclasses.replace(config, out=tmp_path / "interrupted")
    written: list[str] = []

    def killed_after_the_second_batch(path: Path, records: list[Completion]) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        write_records(path, records)

    monkeypatch.setattr(stage, "write_records", killed_after_the_second_batch)
    with pytest.raises(KeyboardInterrupt):
        stage.run(interrupted)
    assert not (interrupted.out / "completions.jsonl").exists()
    monkeypatch.undo()

    asked: list[int] = []
    submit = Engine.submit

    def counted(engine: Engine, request: Request) -> int:
        asked.append(len(request.prompt))
        return submit(engine, request)

    monkeypatch.setattr(Engine, "submit", counted)
    stage.run(interrupted)
    assert len(asked) == 10 - 4 * len([name for name in written if name != "00002.jsonl"]) - 2 * (
        "00002.jsonl" in written
    )
    assert (interrupted.out / "completions.jsonl").read_bytes() == whole


def test_a_task_that_exceeds_the_model_is_named_before_anything_runs(config: SampleConfig):
    long = dataclasses.replace(config, sampling=SamplingConfig(max_new_tokens=500))
    (finding,) = stage.check(long)
    assert finding.level == "error"
    assert "sampling.max_new_tokens = 500" in finding.message
    assert "Tiny/3" in finding.message  # the longest prompt
    with pytest.raises(UserError, match="512"):
        stage.run(long)


def test_check_reports_lengths_and_memory_and_warns_of_equal_samples(config: SampleConfig):
    greedy = dataclasses.replace(config, sampling=SamplingConfig(max_new_tokens=10))
    findings = {finding.level: finding.message for finding in stage.check(greedy)}
    assert "samples_per_task = 2" in findings["warning"]
    assert "GiB" in findings["ok"]
    huge = dataclasses.replace(config, batch_size=10**10)
    assert any(finding.level == "error" and "batch_size" in finding.message for finding in stage.check(huge))


def test_check_names_an_unknown_template_and_a_missing_task(config: SampleConfig):
    (finding,) = stage.check(dataclasses.replace(config, template="vicuna"))
    assert finding.level == "error"
    assert "vicuna" in finding.message
    benchmark = dataclasses.replace(config.benchmark, ids=("Tiny/99",))
    (finding,) = stage.check(dataclasses.replace(config, benchmark=benchmark))
    assert "Tiny/99" in finding.message


def test_a_base_model_is_given_the_bare_prompt(config: SampleConfig):
    base = dataclasses.replace(
        config, template="none", prompt_style="completion", extraction="completion", samples_per_task=1
    )
    stage.run(base)
    first = next(read_records(base.out / "completions.jsonl", Completion))
    assert first.prompt == "def task_0(x):\n"


def test_a_file_of_prompts_and_conversations_is_answered_like_a_benchmark(config: SampleConfig, tmp_path: Path):
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": "Write a sum."},
        {"id": "talk", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Sort."}]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = dataclasses.replace(config, benchmark=PromptsConfig(path=path))
    stage.run(asked)
    completions = list(read_records(asked.out / "completions.jsonl", Completion))
    assert [(one.task_id, one.sample) for one in completions] == [
        ("line-00001", 0), ("line-00001", 1), ("talk", 0), ("talk", 1),
    ]  # fmt: skip
    assert completions[2].prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSort.")
    assert all(one.completion == one.raw for one in completions)


def test_every_line_that_is_no_prompt_is_named(config: SampleConfig, tmp_path: Path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": ""}\n{"prompt": "ok"}\nno JSON\n{"messages": [{"role": "judge"}]}\n["x"]\n{}\n')
    (finding,) = stage.check(dataclasses.replace(config, benchmark=PromptsConfig(path=path)))
    assert finding.level == "error"
    for line in (1, 3, 4, 5, 6):
        assert f"prompts.jsonl:{line}: " in finding.message
    assert "prompts.jsonl:2" not in finding.message
    assert "one of system, user, assistant" in finding.message
