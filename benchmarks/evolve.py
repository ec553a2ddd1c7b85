"""Prints how many calls a second one process keeps up with 1,000 in flight, and what a call costs it in processor time.

    python benchmarks/evolve.py                 # the figures of benchmarks/results/evolve.json
    python benchmarks/evolve.py --calls 500 --in-flight 50

A stub server in a process of its own answers each chat completion after 200 ms, so the ideal is (in flight / 0.2 s).
The calls go the whole way of the evolver: journal keys, requests, transport, JSON, results, durable journal lines. Both
transports are measured, and then the same with a transport that answers at once and does nothing: what is left is our
orchestration alone, apart from HTTP. The generator "alone", fed with requests that exist only while they are asked and
with answers thrown away, shows that its memory does not grow with the number of calls (the journal keeps its answers).
The "engine" rows are the whole stage, from seeds.jsonl to evolved.jsonl, over 20,000 items with a generator that
answers at once: rounds, rules, journal, rows; once more with decontamination against HumanEval, and over four rounds,
whose memory must be that of one. Their "calls" are those that were sent.
Processor time is user and system time of this process; the server's isn't counted, but it needs a core of its own:
"server busy" says how much of one it took, and near 1 it is the server that is measured.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from rich.console import Console
from rich.table import Table

import jaxwiz
from jaxwiz import files
from jaxwiz.evolve import run as stage
from jaxwiz.evolve.config import CallConfig, CallsConfig, EliminateConfig, EvolveConfig
from jaxwiz.evolve.journal import Call, Journal, JournaledGenerator
from jaxwiz.llm import openai_client
from jaxwiz.llm.config import OpenAIBackend, ReplayBackend
from jaxwiz.llm.http import HttpReply
from jaxwiz.llm.openai_client import OpenAIGenerator
from jaxwiz.llm.protocol import Activity, GenerationRequest, GenerationResult, OnResults
from jaxwiz.llm.transport import allow_sockets
from jaxwiz.problems.config import HumanEvalConfig

LATENCY_S = 0.2
IN_FLIGHT = 1000
CALLS = 100_000
ITEMS = 20_000
TOGETHER = 50  # answers that the stub generator reports at a time
OPERATIONS = ("add_constraints", "deepen", "concretize", "reasoning_steps", "complicate_input")
RESULTS = Path(__file__).parent / "results" / "evolve.json"
PROMPT = "Write a Python function that merges overlapping intervals and explain its complexity. " * 12
ANSWER = "def merge(intervals):\n    return sorted(intervals)\n" * 20
REPLY = json.dumps(
    {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "created": 0,
        "model": "stub",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 220, "completion_tokens": 260, "total_tokens": 480},
    }
).encode()


def serve(latency_s: float, ready: Any) -> None:
    """Answers every request on a free port after `latency_s`; sends the port through the pipe `ready`."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(REPLY)

    class Stub(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport
            self.missing: int | None = None  # bytes of the body that have not come
            self.head = b""

        def data_received(self, data: bytes) -> None:
            if self.missing is None:
                self.head += data
                head_end = self.head.find(b"\r\n\r\n")
                if head_end < 0:
                    return
                lower = self.head[:head_end].lower()
                length = lower[lower.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0]
                self.missing = int(length) - (len(self.head) - head_end - 4)
            else:
                self.missing -= len(data)
            if self.missing == 0:
                self.missing, self.head = None, b""
                asyncio.get_running_loop().call_later(latency_s, self.transport.write, head + REPLY)

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0, backlog=4096)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


class AtOnce:
    """A transport without HTTP: every call is answered in the loop's next turn."""

    async def post(self, body: Mapping[str, Any]) -> HttpReply:
        json.dumps(body).encode("ascii")
        await asyncio.sleep(0)
        return HttpReply(200, {}, REPLY)

    async def __aenter__(self) -> "AtOnce":
        return self

    async def __aexit__(self, *error: object) -> None:
        """Holds nothing open."""


class Requests(Sequence[GenerationRequest]):
    """So many requests, each made when it is asked for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if index >= self._count:
            raise IndexError
        return GenerationRequest(f"{index}: {PROMPT}", index, 2048, 1.0, 0.9)


@contextlib.contextmanager
def prepared(way: str, generator: OpenAIGenerator, calls: int) -> Iterator[Callable[[], None]]:
    """Yields what makes all calls: with a journal in a folder of its own, or, for "alone", with nothing around them."""
    if way == "alone":
        yield lambda: generator.generate_all(Requests(calls), lambda results: None)
        return
    questions = [Call("answer", 1, request) for request in Requests(calls)]
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.jsonl") as journal:
        asker = JournaledGenerator(generator, journal)
        answers: list[GenerationResult | None] = []
        yield lambda: answers.extend(asker.ask(questions, way))
        assert [answer and answer.text for answer in answers] == [ANSWER] * calls


def measure(way: str, url: str, server: psutil.Process, calls: int, in_flight: int) -> dict[str, Any]:
    """Returns speed, processor time and memory of `calls` calls.

    Args:
      way: a transport; "no HTTP" for one that does nothing; "alone" for direct calls without a journal.
    """
    transport = "openai" if way == "openai" else "direct"
    config = OpenAIBackend(base_url=url, model="stub", api_key_env="", max_in_flight=in_flight, transport=transport)
    at_once = mock.patch.object(openai_client, "make_transport", lambda *_: AtOnce())
    patched = at_once if way == "no HTTP" else contextlib.nullcontext()
    with patched, prepared(way, OpenAIGenerator(config), calls) as ask:
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from now on
        resident = psutil.Process().memory_info().rss
        server_before = sum(server.cpu_times()[:2])
        began, cpu_began = time.perf_counter(), time.process_time()
        ask()
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        server_s = sum(server.cpu_times()[:2]) - server_before
        peak = peak_resident()
    turns = -(-calls // in_flight)  # n calls take at least ceil(n / in flight) latencies
    return {
        "calls": calls,
        "wall_s": wall_s,
        "calls_per_s": calls / wall_s,
        "of_ideal": turns * LATENCY_S / wall_s,
        "cpu_ms_per_call": 1000 * cpu_s / calls,
        "cpu_busy": cpu_s / wall_s,
        "server_busy": server_s / wall_s,
        "peak_grew_mb": max(0, peak - resident) / 1e6,
    }


class Stub:
    """A generator that answers at once: each evolution is new, no pair is equal, all answers are the same."""

    name = "stub"

    def __init__(self) -> None:
        self.activity = Activity()
        self.calls = 0

    def generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        for start in range(0, len(requests), TOGETHER):
            batch = requests[start : start + TOGETHER]
            self.calls += len(batch)
            on_results({start + place: self.answer(request) for place, request in enumerate(batch)})

    def answer(self, request: GenerationRequest) -> GenerationResult:
        kinds = {16: "Not Equal", 2000: ANSWER}
        text = kinds.get(request.max_new_tokens, f"Task {request.seed}: {PROMPT}")
        return GenerationResult(text, "stop", 220, 260)


def measure_engine(items: int, rounds: int, decontaminate: bool) -> dict[str, Any]:
    """Returns processor time and memory of the whole stage over `items` seeds."""
    generator = Stub()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds.jsonl"
        with open(seeds, "w") as file:
            for number in range(items):
                file.write(json.dumps({"instruction": f"Task {number}: {PROMPT}", "output": ANSWER}) + "\n")
        config = EvolveConfig(
            out=Path(folder) / "out",
            seeds=seeds,
            generator=ReplayBackend(path=seeds),  # the stub takes its place
            operations={f"in_depth/{name}": 1.0 for name in OPERATIONS},
            rounds=rounds,
            calls=CallsConfig(answer=CallConfig(max_new_tokens=2000)),
            eliminate=EliminateConfig(decontaminate=(HumanEvalConfig(),) if decontaminate else ()),
        )
        Path("/proc/self/clear_refs").write_text("5")
        resident = psutil.Process().memory_info().rss
        began, cpu_began = time.perf_counter(), time.process_time()
        with mock.patch.object(stage, "make_generator", lambda *_: generator):
            stage.run(config)
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    return {
        "items": items,
        "rounds": rounds,
        "calls": generator.calls,
        "wall_s": wall_s,
        "cpu_ms_per_call": 1000 * cpu_s / generator.calls,
        "peak_grew_mb": max(0, peak_resident() - resident) / 1e6,
    }


def peak_resident() -> int:
    """Returns the most bytes of memory that this process held since its peak was last cleared."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@contextlib.contextmanager
def stub_server(latency_s: float) -> Iterator[tuple[str, psutil.Process]]:
    """Yields the address and the process of a server that answers after `latency_s`."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(latency_s, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT)
    parser.add_argument("--official-calls", type=int, default=5000, help="of the official client, which is slower")
    parser.add_argument("--items", type=int, default=ITEMS, help="of the whole stage with a stub for a generator")
    arguments = parser.parse_args()
    engine = {
        "engine": measure_engine(arguments.items, 1, decontaminate=False),
        "engine, 4 rounds": measure_engine(arguments.items, 4, decontaminate=False),
        "engine, decontamination": measure_engine(arguments.items, 1, decontaminate=True),
    }
    allow_sockets(2 * arguments.in_flight)
    counts = {"direct": arguments.calls, "alone": arguments.calls, "no HTTP": arguments.calls}
    counts["openai"] = min(arguments.calls, arguments.official_calls)
    with stub_server(LATENCY_S) as (url, server):
        measure("direct", url, server, min(arguments.calls, 1000), arguments.in_flight)  # imports, caches
        figures = {way: measure(way, url, server, count, arguments.in_flight) for way, count in counts.items()}
    table = Table("", "calls", "calls/s", "of ideal", "CPU ms/call", "CPU busy", "server busy", "memory MB")
    for way, row in figures.items():
        table.add_row(
            way,
            str(row["calls"]),
            f"{row['calls_per_s']:.0f}",
            "-" if way == "no HTTP" else f"{row['of_ideal']:.1%}",
            f"{row['cpu_ms_per_call']:.3f}",
            f"{row['cpu_busy']:.2f}",
            f"{row['server_busy']:.2f}",
            f"{row['peak_grew_mb']:.0f}",
        )
    for way, row in engine.items():
        table.add_row(
            way, str(row["calls"]), "-", "-", f"{row['cpu_ms_per_call']:.3f}", "-", "-", f"{row['peak_grew_mb']:.0f}"
        )
    Console().print(table)
    if (arguments.calls, arguments.in_flight, arguments.items) == (CALLS, IN_FLIGHT, ITEMS):
        result = {
            "version": jaxwiz.__version__,
            "cores": os.cpu_count(),
            **vars(arguments),
            "figures": figures,
            "engine": engine,
        }
        files.write_text(RESULTS, json.dumps(result, indent=2) + "\n")
        print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
