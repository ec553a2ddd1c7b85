"""Every command that README and docs/ show is one that the program takes, with a config that is valid.

Commands are those of code blocks and of inline code. They are parsed by the program's own parser, and where they name a
config, that config is resolved with the command's overrides and validated, without running anything.
"""

import re
import shlex
from pathlib import Path

import pytest

from jaxwiz.cli import _joined, _parser
from jaxwiz.config import parse_config, read_overrides
from jaxwiz.pipeline import show_file
from jaxwiz.serve.config import ChatConfig, ServeConfig
from jaxwiz.stages import STAGES
from jaxwiz.step import parse_stage_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What a reader puts a name of their own in the place of.
PLACEHOLDERS = {
    "CONFIG": "configs/train/quickstart.yaml",
    "CONFIG.yaml": "configs/train/quickstart.yaml",
    "RECIPE": "configs/train/wizardcoder-7b-v5e-16.yaml",
    "RECIPE.yaml": "configs/train/wizardcoder-7b-v5e-16.yaml",
    "PIPELINE.yaml": "configs/pipeline/quickstart.yaml",
    "RUN...": "runs/a",
    "<stage>": "train",
    "[a.b=value": "",
    "a.b=value": "",
    "...]": "",
    "...": "",
}
COMMAND = re.compile(r"(?:^|(?<=[\s(`/]))jaxwiz [a-z].*")


def commands_of(page: Path) -> list[str]:
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in fenced if language in ("", "sh", "bash")]
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"^ {4,}\S.*", rest, re.MULTILINE)
    inline = [code for code in re.findall(r"`([^`\n]+)`", rest) if code.startswith("jaxwiz ")]
    lines = [line for block in blocks for line in block.splitlines()]
    found = [match.group() for line in lines if (match := COMMAND.search(line.split("  #")[0]))]
    return list(dict.fromkeys([*found, *inline]))


CASES = [pytest.param(command, id=f"{page.name}: {command}") for page in PAGES for command in commands_of(page)]


def test_there_are_commands():
    assert len(CASES) > 20


@pytest.mark.parametrize("command", CASES)
def test_a_command_is_taken(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(ROOT)
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command, comments=True)][1:]
    words = [word for word in words if word]
    if words[0] not in STAGES and len(words) == 1:
        words.append("--help")  # the name of a command, said in passing
    if words[0] in STAGES and len(words) == 1:
        return
    try:
        options = _parser().parse_args(_joined(words))
    except SystemExit as end:
        assert end.code == 0, f"{command}: {capsys.readouterr().err}"
        return
    if hasattr(options, "settings"):
        data = read_overrides(options.settings, {"checkpoint": str(options.checkpoint)})
        assert parse_config(data, {"serve": ServeConfig, "chat": ChatConfig}[options.command], command)
    if not hasattr(options, "overrides"):
        return
    if "=" in str(options.config) and not options.config.exists():
        stage = STAGES[options.command]
        assert parse_stage_config(stage, read_overrides([str(options.config), *options.overrides]), command)
    else:
        assert show_file(options.config, options.overrides)
