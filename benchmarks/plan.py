"""Plans of WizardCoder's recipe on TPU pods that nobody here has: does it fit, and what bounds its speed.

    .venv-aot/bin/python benchmarks/plan.py                                   all rows, 2 to 5 minutes each
    .venv-aot/bin/python benchmarks/plan.py --only wizardcoder-7b-v5e-16      one row; the others stay as they were

Writes benchmarks/results/plan.json and the table in docs/plan.md, row by row as they finish.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from jaxwiz.files import UserError, write_text
from jaxwiz.plan.build import Plan, make_plan
from jaxwiz.plan.chips import GIB
from jaxwiz.plan.command import read_request
from jaxwiz.plan.report import plan_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/plan.json"
PAGE = ROOT / "docs/plan.md"
START, END = "<!-- table: benchmarks/plan.py -->", "<!-- end of table -->"

ROWS = {  # recipe in configs/train: model in configs/model, topology, slices
    "wizardcoder-7b-v5e-16": ("codellama-python-7b", "v5e:4x4", 1),
    "wizardcoder-13b-v5e-64": ("codellama-python-13b", "v5e:8x8", 1),
    "wizardcoder-15b-v5e-64": ("starcoder-15b", "v5e:8x8", 1),
    "wizardcoder-34b-v5p-128": ("codellama-python-34b", "v5p:4x4x4", 1),
    "wizardcoder-34b-v4-128": ("codellama-python-34b", "v4:4x4x4", 1),
    "wizardcoder-34b-2xv5e-256": ("codellama-python-34b", "v5e:16x16", 2),
    "wizardcoder-33b-v5p-128": ("deepseek-coder-33b", "v5p:4x4x4", 1),
    "wizardcoder-70b-v6e-256": ("codellama-python-70b", "v6e:16x16", 1),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--hlo", type=Path, metavar="FOLDER", help="keep the programs' text there")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="other values than the recipes'; not written")
    options = parser.parse_args()
    failed = [name for name in options.only if not plan_row(name, options)]
    return 1 if failed else 0


def plan_row(name: str, options: argparse.Namespace) -> bool:
    """Returns whether a recipe fits; prints its plan and, where the recipe is as it is shipped, writes it down."""
    model, topology, slices = ROWS[name]
    arguments = argparse.Namespace(
        config=ROOT / f"configs/train/{name}.yaml",
        overrides=options.overrides,
        model=ROOT / f"configs/model/{model}.yaml",
        topology=topology,
        slices=slices,
        length=None,
        decode=False,
        rows=0,
        slots=0,
    )
    print(f"\n== {name} {' '.join(options.overrides)}", flush=True)
    try:
        found = make_plan(read_request(arguments))
    except UserError as error:
        print(error, flush=True)
        return False
    if not isinstance(found, Plan):
        print(f"does not fit, {found.missing / GIB:.2f} GiB missing: {found.message}", flush=True)
        return False
    print(plan_text(found), flush=True)
    if options.hlo:
        write_text(options.hlo / f"{name}.hlo", found.compiled.hlo)
    if not options.overrides:
        write_down(name, found)
    return found.fits


def write_down(name: str, plan: Plan) -> None:
    """Puts one row into the results and the page."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[name] = plan.to_json()
    ordered = {row: results[row] for row in ROWS if row in results}
    write_text(RESULTS, json.dumps(ordered, indent=1) + "\n")
    page = PAGE.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(START)}.*{re.escape(END)}", re.DOTALL)
    write_text(PAGE, pattern.sub(lambda _: f"{START}\n{table(ordered)}\n{END}", page))


def table(results: dict[str, dict]) -> str:
    """Returns the results as a Markdown table."""
    lines = [
        "| recipe | chips | rows a chip x parts | remat | peak of usable GiB | free | s a step, at least | binds | "
        "MFU at most | without overlap | collectives / least |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        mesh = row["mesh"]
        rows = row["batch_rows"] // row["micro_batches"] // (mesh["slice"] * mesh["data"] * mesh["fsdp"])
        moved = sum(row["ici_bytes"].values()) + sum(row["dcn_bytes"].values())
        slices = f"{row['slices']} x " if row["slices"] > 1 else ""
        lines.append(
            f"| {name} | {slices}{row['topology']} | {rows} x {row['micro_batches']} | {row['remat']} | "
            f"{row['peak_bytes'] / GIB:.2f} of {row['usable_bytes'] / GIB:.2f} | {row['free_share']:.1%} | "
            f"{row['seconds']['step']:.2f} | {row['binds']} | {row['mfu_bound']:.1%} | {row['mfu_serial']:.1%} | "
            f"{moved / sum(row['least_bytes'].values()):.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
