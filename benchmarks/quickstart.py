"""Measures `make quickstart` from a fresh clone: wall time, peak memory, each step, a second run, and `jaxwiz --help`.

    python benchmarks/quickstart.py        (about 10 minutes; needs git, make and the package index)

Nothing is taken from caches: the environment, the packages and the model are fetched anew. The table goes to stdout and
the figures to benchmarks/results/quickstart.json. The limits that the project promises stand beside them: 10 minutes
and 8 GiB for the first run on 2 cores, 0.3 s for the help.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "quickstart.json"
HELP_RUNS = 9


def timed(command: list[str], folder: Path, **kwargs: object) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **kwargs)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return seconds, done.stdout + done.stderr


def measure(scratch: Path) -> dict[str, object]:
    clone = scratch / "jaxwiz"
    timed(["git", "clone", "--quiet", str(ROOT), str(clone)], scratch)
    environment = {**os.environ, "PIP_NO_CACHE_DIR": "1"}
    command = ["make", "quickstart", f"ARGS=model.source.cache={scratch / 'cache'}"]
    load = os.getloadavg()[0]
    install_s, _ = timed(["make", ".venv/.core"], clone, env=environment)
    run_s, _ = timed(command, clone, env=environment)
    peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    second_s, second_log = timed(command, clone, env=environment)
    run = clone / "runs" / "quickstart"
    steps = {path.parent.name: json.loads(path.read_text()) for path in sorted(run.glob("*/step.json"))}
    help_command = [str(clone / ".venv/bin/jaxwiz"), "--help"]
    help_s = statistics.median(timed(help_command, clone)[0] for _ in range(HELP_RUNS))
    training = json.loads((run / "train" / "summary.json").read_text())
    return {
        "install_s": round(install_s, 1),
        "first_run_s": round(run_s, 1),
        "total_s": round(install_s + run_s, 1),
        "second_run_s": round(second_s, 1),
        "steps_skipped_in_second_run": second_log.count("skipped, inputs and config have not changed"),
        "peak_memory_gib_largest_process": round(peak_bytes / 2**30, 2),
        "help_s_median": round(help_s, 3),
        "step_s": {name: record["seconds"] for name, record in steps.items()},
        "heldout_loss": [training["heldout_loss_before"], training["heldout_loss_after"]],
        "summary": (run / "evaluate" / "summary.txt").read_text().splitlines(),
        "machine": {
            "cores": os.cpu_count(),
            "load_average_before": round(load, 2),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        },
        "versions": [
            line
            for line in timed([str(clone / ".venv/bin/python"), "-m", "pip", "freeze"], clone)[1].splitlines()
            if line.split("==")[0] in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
        ],
    }


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="jaxwiz-quickstart-") as scratch:
        result = measure(Path(scratch))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{'install + first run':28}{result['total_s']:>8} s     limit 600")
    print(f"{'of which install':28}{result['install_s']:>8} s")
    print(f"{'second run':28}{result['second_run_s']:>8} s")
    print(f"{'peak memory, one process':28}{result['peak_memory_gib_largest_process']:>8} GiB   limit 8")
    print(f"{'jaxwiz --help, median':28}{result['help_s_median']:>8} s     limit 0.3")
    for name, seconds in result["step_s"].items():
        print(f"  {name:26}{seconds:>8} s")
    print("\n".join(result["summary"]))


if __name__ == "__main__":
    main()
