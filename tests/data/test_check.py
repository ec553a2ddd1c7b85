"""`jaxwiz check` of the data stage: quick, complete, and without a trace."""

import pytest

from jaxwiz.config import Finding
from jaxwiz.data.run import check
from tests.data.conftest import alpaca_rows


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def test_a_good_config_is_described(make_config):
    config = make_config(alpaca_rows(3))
    findings = check(config)
    assert levels(findings) == ["ok"] * 4
    assert "tokens a row of text, 256 a packed row; 0 are too long" in findings[2].message
    assert not config.out.exists()


def test_all_faults_are_found_at_once(make_config, tmp_path):
    (tmp_path / "empty").mkdir()
    findings = check(make_config([{"text": "x"}], tokenizer=tmp_path / "empty"))
    assert levels(findings) == ["error", "error", "ok"]
    assert "tokenizer = " in findings[0].message
    assert "none of the first 1 rows is usable" in findings[1].message


def test_some_bad_rows_are_a_warning(make_config):
    assert levels(check(make_config([{"text": "x"}, *alpaca_rows(3)]))) == ["ok", "warning", "ok", "ok"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sequence_length": 8}, "sequence_length = 8: none of the first 3 rows"),
        ({"sequence_length": 8, "over_long": "error"}, "raise sequence_length, or set over_long"),
        ({"template": "wizzard"}, "template = 'wizzard'"),
    ],
)
def test_settings_that_fit_no_row_are_errors(settings, message, make_config):
    errors = [finding.message for finding in check(make_config(alpaca_rows(3), **settings)) if finding.level == "error"]
    assert len(errors) == 1
    assert message in errors[0]


def test_many_over_long_rows_are_a_warning(make_config):
    rows = [*alpaca_rows(3), {"instruction": "Write much.", "output": "much " * 999}]
    assert levels(check(make_config(rows))) == ["ok", "ok", "warning", "ok"]


def test_a_full_disk_is_an_error(make_config, monkeypatch):
    monkeypatch.setattr("jaxwiz.data.check.free_bytes", lambda _: 10)
    assert "disk: about" in check(make_config(alpaca_rows(3)))[-1].message
    assert levels(check(make_config(alpaca_rows(3))))[-1] == "error"
