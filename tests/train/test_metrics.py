"""The metrics file after a kill: cut lines and lines beyond the restored step go, the rest stays byte for byte."""

from pathlib import Path

from jaxwiz.train.metrics import MetricsLog, read_metrics


def write_some(folder: Path) -> None:
    log = MetricsLog(folder, None)
    log.write_heldout(0, 3.0, 7)
    for step in (1, 2, 3):
        log.write_step(step, {"loss": 1 / step}, {"tokens_per_s": 5.0})
    log.close()


def test_lines_hold_reproducible_values_only(tmp_path: Path) -> None:
    write_some(tmp_path)
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 0, "heldout_loss": 3.0, "heldout_loss_tokens": 7},
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 0.5},
        {"step": 3, "loss": 1 / 3},
    ]


def test_continuing_drops_lines_beyond_the_restored_step_and_a_line_cut_short(tmp_path: Path) -> None:
    write_some(tmp_path)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 4, "lo')
    log = MetricsLog(tmp_path, 2)
    log.write_step(3, {"loss": 1 / 3}, {})
    log.close()
    assert path.read_text() == whole


def test_a_run_without_a_saved_state_begins_with_an_empty_file(tmp_path: Path) -> None:
    write_some(tmp_path)
    MetricsLog(tmp_path, None).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""
