"""`jaxwiz compare RUN...`: the leaderboard of finished evaluations beside published scores, and which differ.

    jaxwiz compare runs/a/evaluate runs/b/evaluate:after [--html FILE] [--json]

Reads what `jaxwiz evaluate` wrote and scores nothing. Runs on other tasks, data or oracles are refused by name, since
their difference would say nothing about the systems; other limits, machines or sampling are said beside the table.
Published scores have no verdicts by task, so no interval and no test stand beside them.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxwiz.evaluate.provenance import is_unknown
from jaxwiz.evaluate.report import SCHEMA, compare_with_first, tally
from jaxwiz.evaluate.summary import align, caveats, conclude, samples_text, score_cells
from jaxwiz.files import UserError
from jaxwiz.records import Verdict, read_records

PUBLISHED = Path(__file__).parent / "published.jsonl"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One system of one evaluation.

    Attributes:
      name: what the leaderboard calls it.
      folder: the evaluation's folder.
      label: the system's label there.
      report: that evaluation's report.json.
      verdicts: of this system.
    """

    name: str
    folder: Path
    label: str
    report: Mapping[str, Any]
    verdicts: Sequence[Verdict]

    @property
    def system(self) -> Mapping[str, Any]:
        """What the report says of this system."""
        return self.report["systems"][self.label]


def read_entries(runs: Sequence[str]) -> list[Entry]:
    """Returns the systems of some evaluations, which are all of the same tasks, data and oracle.

    Args:
      runs: folders that the evaluate stage wrote; FOLDER:LABEL takes one system of it.

    Raises:
      UserError: a folder without a finished evaluation, an unknown label, or evaluations that can't be compared.
    """
    found = [entry for run in runs for entry in _read_run(run)]
    labels = [entry.label for entry in found]
    entries: list[Entry] = []
    for entry in found:
        name = entry.label
        if name == "model" or labels.count(name) > 1:
            alone = len(entry.report["systems"]) == 1
            name = str(entry.folder) if alone else f"{entry.folder}:{entry.label}"
        if name in [other.name for other in entries]:
            raise UserError(f"{name}: named twice; name each system once")
        entries.append(dataclasses.replace(entry, name=name))
    _require_comparable(entries)
    return entries


def build_leaderboard(entries: Sequence[Entry]) -> dict[str, Any]:
    """Returns the comparison as a plain mapping: benchmark, systems, published, comparisons, notes.

    Args:
      entries: what `read_entries` returned; all others are compared with the first.
    """
    benchmark = entries[0].report["benchmark"]
    rows = [json.loads(line) for line in PUBLISHED.read_text(encoding="utf-8").splitlines()]
    published = [row for row in rows if row["benchmark"] == benchmark["kind"]] if benchmark["complete"] else []
    notes = [] if benchmark["complete"] else ["Published scores are of all tasks; none stand beside a selection."]
    return {
        "benchmark": benchmark,
        "systems": {entry.name: {**entry.system, "run": str(entry.folder)} for entry in entries},
        "published": published,
        "comparisons": compare_with_first({entry.name: tally(entry.verdicts) for entry in entries}),
        "notes": [*notes, *_notes(entries)],
    }


def leaderboard_text(board: Mapping[str, Any]) -> str:
    """Returns the leaderboard as text: best first, published rows among ours, then tests, notes and sources."""
    benchmark, systems = board["benchmark"], board["systems"]
    has_base = any(system["base_pass_at"] for system in systems.values())
    against = {comparison["second"]: comparison for comparison in board["comparisons"]}
    rows = [(system["pass_at"]["1"]["value"], _our_cells(name, system, against)) for name, system in systems.items()]
    rows += [(row["score"], _published_cells(row)) for row in board["published"]]
    rows.sort(key=lambda row: -row[0])  # stable: ours before published ones
    head = ["system", "pass@1", "95% interval", "base", "n", "temperature", "points", "p"]
    table = [head, *(cells for _, cells in rows)]
    if not has_base:
        table = [[cell for column, cell in enumerate(cells) if column != head.index("base")] for cells in table]
    title = f"{benchmark['name']}, data {benchmark['version']}, {len(benchmark['tasks'])} tasks"
    lines = [f"{title}; points and p against {next(iter(systems))}", "", *align(table), ""]
    lines += [*map(conclude, board["comparisons"]), *board["notes"], *_sources(board["published"])]
    return "\n".join(lines).rstrip() + "\n"


def _our_cells(name: str, system: Mapping[str, Any], against: Mapping[str, Mapping[str, Any]]) -> list[str]:
    base = (system["base_pass_at"] or {}).get("1")
    test = against.get(name)
    difference = [f"{100 * test['difference']:+.1f}", f"{test['corrected_p_value']:.2g}"] if test else ["-", "-"]
    drawn = [samples_text(system), _setting(system, "temperature")]
    return [name, *score_cells(system["pass_at"]["1"]), score_cells(base)[0], *drawn, *difference]


def _published_cells(row: Mapping[str, Any]) -> list[str]:
    base = f"{row['base_score']:.1%}" if row["base_score"] else "-"
    drawn = [str(row["samples_per_task"]), str(row["temperature"])]
    return [f"{row['system']} (published)", f"{row['score']:.1%}", "-", base, *drawn, "-", "-"]


def comparison_page(entries: Sequence[Entry], board: Mapping[str, Any]) -> str:
    """Returns the HTML page that shows the systems' answers side by side.

    Raises:
      UserError: the benchmark's data can't be read any more.
    """
    from jaxwiz.config import parse_config
    from jaxwiz.evaluate.answers import read_completions
    from jaxwiz.evaluate.config import EvaluateConfig
    from jaxwiz.evaluate.page import render_page
    from jaxwiz.evaluate.page_data import PageSystem
    from jaxwiz.files import sha256_of_file
    from jaxwiz.problems.benchmarks import load_benchmark

    first = entries[0].report
    config = parse_config(dict(first["config"]), EvaluateConfig, str(entries[0].folder / "report.json"))
    benchmark = load_benchmark(config.benchmark)
    if benchmark.sha256 != first["benchmark"]["sha256"]:
        raise UserError(f"{benchmark.file}: has changed since {entries[0].folder} was scored; score it again")
    systems, notes = [], list(board["notes"])
    for entry in entries:
        file = Path(entry.system["completions"]["file"])
        if file.is_file() and sha256_of_file(file) == entry.system["completions"]["sha256"]:
            written, source = read_completions(file, benchmark.problems, benchmark.known), str(file)
        else:
            written, source = [], f"{file} is gone or has changed since it was scored"
            notes.append(f"No programs of {entry.name} are shown: {source}.")
        systems.append(PageSystem(entry.name, entry.verdicts, written, source))
    report = {**first, "systems": board["systems"], "comparisons": board["comparisons"], "training": None}
    return render_page(report, benchmark.problems, systems, None, config.page_text_mib << 20, notes)


def _read_run(run: str) -> list[Entry]:
    folder, wanted = Path(run), ""
    if not folder.exists() and ":" in run:
        place, _, wanted = run.rpartition(":")
        folder = Path(place)
    path = folder / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(
            f"{run}: no report.json to read there; give the `out` folder of a finished evaluation"
        ) from None
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise UserError(f"{path}: not a report of this version ({SCHEMA}); run `jaxwiz evaluate` again")
    if wanted and wanted not in report["systems"]:
        raise UserError(f"{run}: no system {wanted!r} in {path}; it has {', '.join(report['systems'])}")
    by_label: dict[str, list[Verdict]] = {label: [] for label in report["systems"]}
    for verdict in read_records(folder / "verdicts.jsonl", Verdict):
        by_label.setdefault(verdict.system, []).append(verdict)
    for label, system in report["systems"].items():
        if len(by_label[label]) != sum(system["outcomes"].values()):
            raise UserError(f"{folder}: verdicts.jsonl does not belong to report.json; run `jaxwiz evaluate` again")
    return [
        Entry(label, folder, label, report, by_label[label])
        for label in report["systems"]
        if label == wanted or not wanted
    ]


def _require_comparable(entries: Sequence[Entry]) -> None:
    first = entries[0]
    faults = []
    for entry in entries[1:]:
        ours, theirs = first.report["benchmark"], entry.report["benchmark"]
        different = [
            f"{key} is {theirs[key]} instead of {ours[key]}"
            for key in ("kind", "version", "oracle", "sha256")
            if ours[key] != theirs[key]
        ][: 1 if ours["kind"] != theirs["kind"] else None]
        if set(ours["tasks"]) != set(theirs["tasks"]) and ours["kind"] == theirs["kind"]:
            common = len(set(ours["tasks"]) & set(theirs["tasks"]))
            different.append(f"{len(theirs['tasks'])} tasks, of which {common} are among its {len(ours['tasks'])}")
        if different:
            faults.append(f"{entry.name} cannot be compared with {first.name}: {'; '.join(different)}")
    if faults:
        raise UserError("\n".join([*dict.fromkeys(faults), "score them on the same tasks, data and version"]))


def _notes(entries: Sequence[Entry]) -> list[str]:
    """Returns the sentences on what else differs between the runs, and each run's own caveats."""
    looked_at: dict[str, Callable[[Entry], Any]] = {
        "time limits (s)": lambda entry: entry.report["scoring"]["timeout_s"],
        "limits on a call": lambda entry: str(entry.report["scoring"]["call_limit"] or "none"),
        "memory limits (MiB)": lambda entry: entry.report["scoring"]["memory_limit_mib"],
        "machine factors": lambda entry: entry.report["scoring"]["machine_factor"],
        "sandbox levels": lambda entry: entry.report["scoring"]["sandbox"]["level"],
        "versions of jaxwiz": lambda entry: entry.report["versions"]["jaxwiz"],
        "Python versions": lambda entry: entry.report["versions"]["python"],
        "samples a task": lambda entry: samples_text(entry.system),
        "temperatures": lambda entry: _setting(entry.system, "temperature"),
        "prompt styles": lambda entry: _setting(entry.system, "prompt_style"),
        "extraction modes": lambda entry: _setting(entry.system, "extraction"),
    }
    notes = []
    for name, look in looked_at.items():
        values = {entry.name: look(entry) for entry in entries}
        if len(set(values.values())) > 1:
            notes.append(f"Different {name}: {', '.join(f'{label} {value}' for label, value in values.items())}.")
    for entry in entries:
        own = {**entry.report, "systems": {entry.name: entry.system}}
        notes += [sentence for sentence in caveats(own) if sentence not in notes]
    return notes


def _setting(system: Mapping[str, Any], name: str) -> str:
    sampling = system["sampling"]
    return "unknown" if is_unknown(sampling) else str(sampling.get(name, "unknown"))


def _sources(published: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["", "Published scores, single values without verdicts by task:"] if published else []
    by_source: dict[tuple[str, str], list[str]] = {}
    for row in published:
        by_source.setdefault((row["source"], row["note"]), []).append(row["system"])
    for (source, note), systems in by_source.items():
        lines.append(f"  {', '.join(dict.fromkeys(systems))}: {source}{f'; {note}' if note else ''}")
    return lines
