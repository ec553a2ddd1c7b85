"""Stands in for `jaxwiz` where the commands of a page are run: calls it with what makes a command small and local.

Overrides are added after those of the page, so all that the page says is still parsed, merged and validated:
a tiny model, the first two tasks, four tokens an answer, an endpoint on this machine ($ENDPOINT). The model that a page
has in /models is $MODEL. What needs a pod is checked instead of run. A server is asked whether it is well, and ended.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = [sys.executable, "-m", "jaxwiz.cli"]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
TASK_FILES = {
    "humaneval_plus": SHARED / "HumanEvalPlus-v0.1.10.jsonl.gz",
    "mbpp_plus": SHARED / "MbppPlus-v0.2.0.jsonl.gz",
}
SMALL_SAMPLE = ["sampling.max_new_tokens=4"]
FEW_TASKS = ["benchmark.limit=2"]
SMALL_QUICKSTART = [
    "evolve.items_per_round=2",
    "evolve.generator.max_prompt_tokens=3000",
    "evolve.calls.evolve.max_new_tokens=8",
    "evolve.calls.answer.max_new_tokens=8",
    *(f"sample-{which}.{small}" for which in ("before", "after") for small in SMALL_SAMPLE + FEW_TASKS),
    *(f"evaluate.{few}" for few in FEW_TASKS),
]


def added(words: list[str]) -> list[str]:
    """Returns what is added to a command."""
    text = " ".join(words)
    files = [f"benchmark.path={path}" for kind, path in TASK_FILES.items() if kind in text]
    match words[0]:
        case "run" if "quickstart" in text and "--dry-run" not in words:
            own = [] if "model.source" in text else [f"model.source={{kind: hf, path: {os.environ['MODEL']}}}"]
            return [*own, *SMALL_QUICKSTART]
        case "evolve" if "quickstart" not in text:
            return [f"generator.base_url={os.environ['ENDPOINT']}"]
        case "evolve-loop":
            return ["reported=[{kind: humaneval}]", *(["--check"] if "--check" not in words else [])]
        case "data" if "stats" not in words:
            return ["clean.benchmarks=[{kind: humaneval}]"]
        case "sample":
            return SMALL_SAMPLE + files + ([] if "kind: prompts" in text or "kind=prompts" in text else FEW_TASKS)
        case "evaluate" if "configs/" not in text:
            return ["benchmark={kind: humaneval, limit: 2}"]
        case "evaluate":
            return FEW_TASKS + files
    return []


def serve(command: list[str]) -> int:
    """Starts a server, waits until it says that it is well, tells it to end, and returns its exit code."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([*command, f"port={port}"])
    last_moment = time.monotonic() + 120
    while process.poll() is None:
        if time.monotonic() > last_moment:
            process.kill()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                process.send_signal(signal.SIGTERM)
                return process.wait(60)
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    return process.returncode or 1


def main(words: list[str]) -> int:
    """Runs a command of a page; returns its exit code."""
    words = [word.replace("/models/TinyLlama", os.environ["MODEL"]) for word in words]
    command = [*PROGRAM, *words, *added(words)]
    return serve(command) if words[0] == "serve" else subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
