"""The data stage as a whole: from files of instructions to a dataset whose every row can be trained on."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest

from jaxwiz.data import run as stage
from jaxwiz.data.config import DataConfig
from jaxwiz.data.feed import Feed
from jaxwiz.data.hub import HubDataset
from jaxwiz.data.run import run
from jaxwiz.files import UserError, hash_tree
from jaxwiz.records import write_records
from jaxwiz.text.tokenizer import load_tokenizer
from tests.data.conftest import alpaca_rows, evolved


def all_rows(config: DataConfig, split: str = "train"):
    feed = Feed(config.out / "dataset", split, batch_size=1, seed=0, shuffle=False)
    return [feed.batch(step) for step in range(feed.rows)]


def texts(config: DataConfig, split: str) -> list[str]:
    """The text of every example in a split."""
    tokenizer = load_tokenizer(config.tokenizer)
    found = []
    for row in all_rows(config, split):
        for segment in range(1, row.segment_ids.max() + 1):
            found.append(tokenizer.decode(row.tokens[row.segment_ids == segment]))
    return found


def assert_sound(config: DataConfig) -> dict:
    """Checks what must hold of every row, and that the manifest counts what is there; returns the manifest."""
    tokenizer = load_tokenizer(config.tokenizer)
    manifest = json.loads((config.out / "manifest.json").read_text())
    for split, facts in manifest["splits"].items():
        rows = all_rows(config, split)
        assert len(rows) == facts["rows"]
        assert sum(int((row.segment_ids > 0).sum()) for row in rows) == facts["tokens"]
        assert sum(int(row.loss_mask.sum()) for row in rows) == facts["loss_tokens"]
        assert sum(int(row.segment_ids.max()) for row in rows) == facts["examples"]
        for row in rows:
            used = row.segment_ids[0] > 0
            assert used[: used.sum()].all()  # padding is at the end
            assert not row.loss_mask[0][~used].any()
            for segment in range(1, row.segment_ids.max() + 1):
                own = row.segment_ids[0] == segment
                mask, tokens = row.loss_mask[0][own], row.tokens[0][own]
                begin = int(mask.argmax())
                assert 0 < begin < len(mask) - 1
                assert mask[begin:].all()  # the answer is one span, up to the end
                assert tokens[-1] == tokenizer.eos_id
                assert tokenizer.decode(tokens[:begin]).endswith("### Response:")
                np.testing.assert_array_equal(row.positions[0][own], np.arange(len(mask)))
    return manifest


def test_alpaca_rows_become_sound_rows(make_config):
    config = make_config(alpaca_rows(60), sequence_length=256, rows_per_shard=4)
    assert run(config) == config.out
    manifest = assert_sound(config)
    assert manifest["source_rows"] == manifest["splits"]["train"]["examples"] == 60
    assert len(manifest["splits"]["train"]["shards"]) > 1
    for shard in manifest["splits"]["train"]["shards"]:
        assert hash_tree(config.out / "dataset")[shard["name"]] == shard["sha256"]
    summary = (config.out / "summary.txt").read_text()
    assert "60 examples" in summary
    assert not (config.out / "rejects.jsonl").exists()


def test_tfds_opens_what_a_run_wrote(make_config):
    import tensorflow_datasets as tfds

    config = make_config(alpaca_rows(60), rows_per_shard=4, heldout_share=0.2)
    run(config)
    builder = tfds.builder_from_directory(config.out / "dataset")
    assert set(builder.info.splits) == {"train", "heldout"}
    for split in ("train", "heldout"):
        source = builder.as_data_source(split)
        rows = all_rows(config, split)
        assert len(source) == len(rows)
        for found, row in zip(source, rows, strict=True):
            for name, array in found.items():
                np.testing.assert_array_equal(array, getattr(row, name)[0])


def test_code_alpaca_fills_its_rows(make_config, code_alpaca):
    config = make_config(code_alpaca, sequence_length=2048)
    run(config)
    manifest = assert_sound(config)
    assert manifest["splits"]["train"]["fill"] >= 0.98
    assert manifest["splits"]["train"]["examples"] + sum(manifest["left_out"].values()) == 2017


def test_the_same_inputs_give_the_same_bytes_wherever_they_lie(make_config, tmp_path, tiny_tokenizer_folder):
    first = make_config(alpaca_rows(40), heldout_share=0.2)
    run(first)
    shutil.copytree(tiny_tokenizer_folder, tmp_path / "elsewhere" / "tokenizer")
    source = shutil.copy(first.sources[0], tmp_path / "elsewhere")
    second = make_config(
        tmp_path / "elsewhere" / "rows.json", out="second", heldout_share=0.2, tokenizer=tmp_path / "elsewhere"
    )
    assert str(second.sources[0]) == str(source)
    run(second)
    assert hash_tree(first.out) == hash_tree(second.out)


def test_a_second_run_replaces_what_a_killed_one_left(make_config):
    config = make_config(alpaca_rows(40))
    run(config)
    complete = hash_tree(config.out)
    (config.out / "manifest.json").unlink()
    (config.out / "dataset" / "features.json").unlink()
    (config.out / ".dataset.partial").mkdir()
    run(config)
    assert hash_tree(config.out) == complete


def test_no_lineage_is_on_both_sides(make_config, tmp_path):
    tasks = [
        evolved(f"{root}-{n}" if n else str(root), str(root), f"Task {root} {n}")
        for root in range(30)
        for n in range(4)
    ]
    path = tmp_path / "evolved.jsonl"
    write_records(path, tasks)
    config = make_config(path, heldout_share=0.3)
    run(config)
    assert_sound(config)
    roots = {
        split: {text.split("Task ")[1].split()[0] for text in texts(config, split)} for split in ("train", "heldout")
    }
    assert len(roots["train"]) + len(roots["heldout"]) == 30
    assert not roots["train"] & roots["heldout"]
    assert 3 <= len(roots["heldout"]) <= 16


def test_bad_rows_are_counted_by_reason_and_listed(make_config):
    rows = [
        *alpaca_rows(30),
        {"instruction": "x"},
        {"instruction": "x", "output": ""},
        {"instruction": "y", "output": ""},
    ]
    config = make_config(rows, max_rejected_share=0.1)
    run(config)
    assert assert_sound(config)["left_out"] == {"empty answer": 2, "missing field": 1}
    listed = [json.loads(line) for line in (config.out / "rejects.jsonl").read_text().splitlines()]
    assert [(entry["number"], entry["reason"]) for entry in listed] == [
        (31, "missing field"),
        (32, "empty answer"),
        (33, "empty answer"),
    ]
    assert "2 empty answer, 1 missing field, of 33 source rows" in (config.out / "summary.txt").read_text()


def test_too_many_bad_rows_stop_the_run_and_are_listed(make_config):
    config = make_config([*alpaca_rows(5), {"instruction": "x"}])
    with pytest.raises(UserError, match=r"1 of 6 .*max_rejected_share = 0.05.*rows\.json:6: missing field"):
        run(config)
    assert (config.out / "rejects.jsonl").exists()
    assert not (config.out / "dataset").exists()


def test_rows_that_the_template_refuses_count_as_unusable(make_config, tmp_path):
    """A chat template may refuse a conversation by `raise_exception`."""
    template = tmp_path / "picky.jinja"
    template.write_text(
        "{% for message in messages %}{% if message.content == 'No.' %}{{ raise_exception('not this one') }}{% endif %}"
        "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    rows = [*alpaca_rows(18), {"instruction": "No.", "output": "no"}, {"instruction": "x"}]
    config = make_config(rows, template=str(template), max_rejected_share=0.1)
    run(config)
    manifest = json.loads((config.out / "manifest.json").read_text())
    assert manifest["left_out"] == {"missing field": 1, "refused by template": 1}
    with pytest.raises(UserError, match=r"2 of 20 .*max_rejected_share = 0.09.*rows\.json:19: refused by template"):
        run(make_config(rows, out="few", template=str(template), max_rejected_share=0.09))


@pytest.mark.parametrize(
    ("over_long", "left_out", "cut", "examples"),
    [("drop", {"over-long": 2}, {}, 10), ("truncate_prompt", {"over-long": 1}, {"prompt cut": 1}, 11)],
)
def test_over_long_examples_are_counted_by_policy(over_long, left_out, cut, examples, make_config):
    long = [{"instruction": "Do it. " * 99, "output": "done"}, {"instruction": "Do it.", "output": "done " * 99}]
    config = make_config([*long, *alpaca_rows(10)], over_long=over_long)
    run(config)
    manifest = assert_sound(config)
    assert (manifest["left_out"], manifest["cut"]) == (left_out, cut)
    assert manifest["splits"]["train"]["examples"] == examples


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([], {}, "holds no rows"),
        ([{"instruction": "x", "output": "x" * 999}], {}, "none of 1 source rows"),
        ([{"instruction": "x", "output": "x" * 999}], {"over_long": "error"}, "over_long"),
    ],
)
def test_sources_that_give_nothing_are_an_error(rows, settings, message, make_config):
    with pytest.raises(UserError, match=message):
        run(make_config(rows, **settings))


def test_a_source_that_is_not_there_is_named(make_config, tmp_path):
    with pytest.raises(UserError, match=r"absent\.json: cannot read .*'sources'"):
        run(make_config(tmp_path / "absent.json"))


def test_a_data_set_on_a_hub_is_read_like_its_files(make_config, monkeypatch):
    local = make_config(alpaca_rows(30))
    run(local)
    source = HubDataset(repo_id="owner/name")
    monkeypatch.setattr("jaxwiz.data.hub.fetch_dataset", lambda dataset: [*local.sources] if dataset == source else [])
    hub = dataclasses.replace(local, sources=(source,), out=local.out.with_name("hub"))
    run(hub)
    assert hash_tree(hub.out) == hash_tree(local.out)


def test_sources_that_lose_rows_while_they_are_read_are_an_error(make_config, monkeypatch):
    monkeypatch.setattr(stage, "ROWS_PER_BLOCK", 16)
    whole = stage.read_all
    monkeypatch.setattr(stage, "read_all", lambda sources: itertools.islice(whole(sources), 16))
    with pytest.raises(UserError, match=r"rows\.json: lost rows while they were read"):
        run(make_config(alpaca_rows(17)))
