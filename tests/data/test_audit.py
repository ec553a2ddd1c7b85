"""Every kind of fault, planted in a sound dataset, is found by the check that claims it; a sound one has none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxwiz.cli import main
from jaxwiz.data.audit import CHECKS, Rules, check_row, rules_of
from jaxwiz.data.rows import RowReader, read_shape
from jaxwiz.stages import STAGES
from jaxwiz.step import run_step
from jaxwiz.text.templates import load_template
from jaxwiz.text.tokenizer import load_tokenizer
from tests.data.conftest import alpaca_rows

Row = dict[str, np.ndarray]
CHATS = [
    {
        "messages": [
            {"role": role, "content": f"{role} {n} {turn}"} for turn in range(2) for role in ("user", "assistant")
        ]
    }
    for n in range(6)
]


@pytest.fixture(params=["wizardcoder", "chatml"])
def out(make_config: Callable, request: pytest.FixtureRequest) -> Path:
    config = make_config(alpaca_rows(30) + CHATS, template=request.param, rows_per_shard=2, heldout_share=0.2)
    run_step(STAGES["data"], config)
    return config.out


@pytest.fixture
def rules(out: Path, tiny_tokenizer_folder: Path) -> Rules:
    tokenizer = load_tokenizer(tiny_tokenizer_folder)
    name = "chatml" if '"chatml"' in (out / "manifest.json").read_text() else "wizardcoder"
    return rules_of(tokenizer, load_template(name, tokenizer))


@pytest.fixture
def row(out: Path) -> Row:
    """A sound row of several examples, free to be spoilt."""
    shape = read_shape(out / "dataset")
    return {
        name: array.copy() for name, array in RowReader(shape.shards["train"], shape.sequence_length).read(0).items()
    }


def checks_of(row: Row, rules: Rules) -> set[str]:
    return {check for check, _ in check_row(row, rules)}


def ends(row: Row) -> tuple[int, int]:
    """The first and the last token of the second example."""
    places = np.flatnonzero(row["segment_ids"] == 2)
    return int(places[0]), int(places[-1])


def test_a_sound_dataset_has_no_faults(out: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["audit", str(out)]) == 0
    printed = capsys.readouterr().out
    assert all(f"{check:25} ok" in printed for check in CHECKS)
    assert printed.rstrip().endswith(" rows, 0 faults")


def test_the_row_is_sound_before_it_is_spoilt(row: Row, rules: Rules) -> None:
    assert check_row(row, rules) == []


def test_zero_loss(row: Row, rules: Rules) -> None:
    row["loss_mask"][row["segment_ids"] == 2] = False
    assert "zero-loss row" in checks_of(row, rules)
    empty = {name: np.zeros_like(array) for name, array in row.items()}
    assert checks_of(empty, rules) == {"zero-loss row"}


def test_untrained_eos(row: Row, rules: Rules) -> None:
    row["loss_mask"][ends(row)[1]] = False
    assert "EOS untrained" in checks_of(row, rules)


def test_ids_outside_the_vocabulary(row: Row, rules: Rules) -> None:
    for wrong in (-1, rules.vocab_size):
        row["tokens"][ends(row)[0] + 4] = wrong
        assert "unknown id" in checks_of(row, rules)


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_mask_that_begins_early_or_late(row: Row, rules: Rules, shift: int) -> None:
    begin, end = ends(row)
    first = begin + int(row["loss_mask"][begin : end + 1].argmax())
    row["loss_mask"][first - 1 if shift < 0 else first] = shift < 0
    assert checks_of(row, rules) == {"mask outside the answer"}


def test_a_mask_over_everything_or_over_padding(row: Row, rules: Rules) -> None:
    over_all = {**row, "loss_mask": row["segment_ids"] > 0}
    assert checks_of(over_all, rules) == {"mask outside the answer"}
    row["segment_ids"][-1] = row["positions"][-1] = 0
    row["loss_mask"][-1] = True
    assert "mask outside the answer" in checks_of(row, rules)


def test_a_mask_that_ends_within_the_answer(row: Row, rules: Rules) -> None:
    _, end = ends(row)
    row["loss_mask"][end - 2 : end] = False
    assert "mask outside the answer" in checks_of(row, rules)


def test_truncated_examples(row: Row, rules: Rules) -> None:
    begin, end = ends(row)
    without_end = {name: array.copy() for name, array in row.items()}
    for array in without_end.values():
        array[end:] = np.append(array[end + 1 :], 0)
    assert "truncated" in checks_of(without_end, rules)
    row["positions"][begin : end + 1] += 3  # its beginning stood in another row
    assert checks_of(row, rules) == {"truncated"}


def test_doubled_and_missing_bos() -> None:
    """BOS 1, EOS 2; a second BOS further on is another turn's."""
    rules = Rules(vocab_size=20, bos_id=1, eos_id=2, opening=(9,), closing=(2,))

    def example(tokens: list[int], trained: list[int]) -> Row:
        length = len(tokens)
        return {
            "tokens": np.array(tokens, np.int32),
            "loss_mask": np.array(trained, np.bool_),
            "segment_ids": np.ones(length, np.int32),
            "positions": np.arange(length, dtype=np.int32),
        }

    assert check_row(example([1, 5, 9, 6, 2, 1, 5, 9, 6, 2], [0, 0, 0, 1, 1, 0, 0, 0, 1, 1]), rules) == []
    assert checks_of(example([1, 1, 5, 9, 6, 2], [0, 0, 0, 0, 1, 1]), rules) == {"doubled BOS"}
    assert checks_of(example([5, 9, 6, 2], [0, 0, 1, 1]), rules) == {"truncated"}
    over_the_turns = example([1, 5, 9, 6, 2, 1, 5, 9, 6, 2], [0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
    assert checks_of(over_the_turns, rules) == {"mask outside the answer"}


def test_a_row_is_shown_with_its_examples_loss_and_control_tokens(out: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["audit", str(out), "--row", "0"]) == 0
    printed = capsys.readouterr().out
    assert "example 1, tokens 0 to" in printed and "padding:" in printed
    assert "\nPrint " in printed or "user\nPrint " in printed
    assert "print(" in printed and "<|im_end|>" in printed
    assert main(["audit", str(out), "--row", "999"]) == 2
    assert main(["audit", str(out / "nowhere")]) == 2


def test_a_spoilt_shard_fails_the_command_and_is_named(out: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    read = RowReader.read

    def spoil(self: RowReader, number: int) -> Row:
        row = {name: array.copy() for name, array in read(self, number).items()}
        if number == 3:
            row["tokens"][5] = 10**6
        return row

    monkeypatch.setattr(RowReader, "read", spoil)
    assert main(["audit", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "00001-of-" in printed and "row 1 (--row 3): unknown id: 1000000 at token 5" in printed
