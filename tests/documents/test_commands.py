"""Every command that README and docs/ show is one that the program takes, with a config that is valid.

Commands are those of code blocks and of inline code. They are parsed by the program's own parser, and where they name a
config, that config is resolved with the command's overrides and validated, without running anything.
"""

import re
import shlex

import pytest

from jaxwiz.cli import parse_arguments
from jaxwiz.config import parse_config, read_overrides
from jaxwiz.pipeline import show_file
from jaxwiz.serve.config import ChatConfig, ServeConfig
from jaxwiz.stages import STAGES
from jaxwiz.step import parse_stage_config
from tests.documents.pages import PAGES, ROOT, lines_to_type

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
COMMAND = re.compile(r"(?:^|(?<=[\s(/]))jaxwiz [a-z].*")
CASES = [
    pytest.param(match.group(), id=f"{page.name}: {match.group()}")
    for page in PAGES
    for line in lines_to_type(page)
    if (match := COMMAND.search(line))
]


def test_there_are_commands():
    assert len(CASES) > 80


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
        options = parse_arguments(words)
    except SystemExit as end:
        assert end.code == 0, f"{command}: {capsys.readouterr().err}"
        return
    if options.command in ("serve", "chat"):
        data = read_overrides(options.overrides, {"checkpoint": str(options.checkpoint)})
        assert parse_config(data, {"serve": ServeConfig, "chat": ChatConfig}[options.command], command)
    elif hasattr(options, "config") and "=" in str(options.config) and not options.config.exists():
        stage = STAGES[options.command]
        assert parse_stage_config(stage, read_overrides([str(options.config), *options.overrides]), command)
    elif hasattr(options, "config"):
        assert show_file(options.config, options.overrides)
