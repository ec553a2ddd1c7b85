"""The audit's page in a real browser: colours, control tokens, and hostile text that stays text."""

from pathlib import Path

from jaxwiz.cli import main
from jaxwiz.stages import STAGES
from jaxwiz.step import run_step
from tests.chromium import Chromium

HOSTILE = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"


def test_a_page_shows_rows_and_keeps_text_as_text(make_config, tmp_path: Path, chromium: Chromium) -> None:
    rows = [{"instruction": HOSTILE, "input": "", "output": f"print({n})"} for n in range(3)]
    config = make_config(rows, template="chatml", sequence_length=512)
    run_step(STAGES["data"], config)
    page = tmp_path / "audit.html"
    assert main(["audit", str(config.out), "--html", str(page)]) == 0
    chromium.open(page)
    assert chromium.run("document.title").startswith("Audit of ")
    text = chromium.run("document.querySelector('details[open] pre').textContent")
    assert HOSTILE in text and "example 1, tokens 0 to" in text
    losses = chromium.run("[...document.querySelectorAll('details[open] .loss')].map(one => one.textContent)")
    assert losses[:2] == ["print(0)", "<|im_end|>"]
    controls = chromium.run("[...document.querySelectorAll('details[open] .control')].map(one => one.textContent)")
    assert controls[:2] == ["<|im_start|>", "<|im_end|>"]
    assert chromium.run("document.querySelectorAll('img, script').length") == 0
    assert chromium.requests() == [page.resolve().as_uri()]
    assert chromium.complaints() == []
