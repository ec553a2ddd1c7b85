"""Says in words and aligned tables what an evaluation found, also when nothing has improved."""

from collections.abc import Mapping, Sequence
from typing import Any


def conclusions(report: Mapping[str, Any]) -> list[str]:
    """Returns the sentences that say what was found: on each difference, then on the loss, where it can be said."""
    sentences = [conclude(comparison) for comparison in report["comparisons"]]
    training = report["training"]
    if training is not None:
        before, after = (training["heldout_loss"][moment] for moment in ("before", "after"))
        if before is not None and after is not None:
            verb = "fell" if after < before else "rose" if after > before else "stayed"
            change = f" ({(after - before) / before:+.1%})" if before else ""
            sentences.append(f"Held-out loss {verb} from {before:.4f} to {after:.4f}{change}.")
    return sentences


def conclude(comparison: Mapping[str, Any]) -> str:
    """Returns one sentence on whether two systems differ."""
    first, second = comparison["first"], comparison["second"]
    better, worse = comparison["better"], comparison["worse"]
    if not better and not worse:
        return f"No task's pass rate differs between {first} and {second}: pass@1 is no better and no worse."
    parts = [
        f"{100 * comparison['difference']:+.1f} points of pass@1",
        f"{better} {'task' if better == 1 else 'tasks'} better, {worse} worse",
        f"exact permutation test p = {comparison['corrected_p_value']:.2g}",
    ]
    if comparison["low"] is not None:
        parts[0] += f" (95% interval {100 * comparison['low']:+.1f} to {100 * comparison['high']:+.1f})"
    test = ", ".join(parts)
    if not comparison["significant"]:
        return f"The difference between {first} and {second} is within noise: {test}."
    return f"{second} is {'better' if comparison['difference'] > 0 else 'worse'} than {first}: {test}."


def summary_text(report: Mapping[str, Any]) -> str:
    """Returns the report as an aligned table and its conclusions, ending in a line break."""
    has_loss = any(system["heldout_loss"] is not None for system in report["systems"].values())
    has_base = any(system["base_pass_at"] for system in report["systems"].values())
    sizes = list(dict.fromkeys(k for system in report["systems"].values() for k in system["pass_at"]))
    rows = [["system"]]
    rows[0] += ["held-out loss"] if has_loss else []
    for k in sizes:
        rows[0] += [f"pass@{k}", "95% interval", *([f"base pass@{k}"] if has_base else [])]
    rows[0] += ["tasks", "samples a task"]
    for label, system in report["systems"].items():
        loss = system["heldout_loss"]
        row = [label]
        row += ["-" if loss is None else f"{loss:.4f}"] if has_loss else []
        for k in sizes:
            row += [*score_cells(system["pass_at"].get(k))]
            row += [score_cells((system["base_pass_at"] or {}).get(k))[0]] if has_base else []
        rows.append([*row, str(len(report["benchmark"]["tasks"])), samples_text(system)])
    return "\n".join([*align(rows), *conclusions(report), *caveats(report)]) + "\n"


def caveats(report: Mapping[str, Any]) -> list[str]:
    """Returns the sentences that warn of what could be wrong with the numbers."""
    sentences = []
    for label, system in report["systems"].items():
        forgeable = system["forgeable"]
        if forgeable["passed"]:
            sentences.append(
                f"{forgeable['passed']} of {system['outcomes']['passed']} passes of {label} could have been forged: "
                "their tests cannot be split from the program."
            )
        counted = {reason: count for reason, count in system["differs_by_design"].items() if count}
        if counted:
            listed = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in counted.items())
            sentences.append(f"Verdicts of {label} that may differ from the official harness by design: {listed}.")
    if report["scoring"]["sandbox"]["level"] == "L2":
        sentences.append("Programs ran without a sandbox (level L2): they could read and change all that the user can.")
    return sentences


def score_cells(score: Mapping[str, Any] | None) -> tuple[str, str]:
    """Returns a score and its interval as text, "79.9%" and "73.2% to 85.4%"; dashes where there is none."""
    if score is None:
        return "-", "-"
    return f"{score['value']:.1%}", f"{score['low']:.1%} to {score['high']:.1%}"


def samples_text(system: Mapping[str, Any]) -> str:
    """Returns a system's number of samples a task, as "1" or "8 to 10"."""
    low, high = system["samples_per_task"]
    return str(low) if low == high else f"{low} to {high}"


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
