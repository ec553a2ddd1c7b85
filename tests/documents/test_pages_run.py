"""README and the pages of docs/, typed line by line, in real processes, on a tiny model (see stand_in.py).

Each page is gone through in its order, README and the guide first: what they make is what the others speak of. Lines
that no test can run are listed with the reason; what needs a pod is run as the dry run of its script.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxwiz.stages import STAGES
from tests.documents.pages import PAGES, ROOT, lines_to_type
from tests.documents.stand_in import TASK_FILES
from tests.llm.scripted_server import Reply, chat, scripted_server
from tests.local_hub import local_hub

pytestmark = pytest.mark.documents

NOT_RUN = {
    r"git clone|make test|python3 -m venv|pip install|\.venv/bin/pip": "installs: a clean checkout's tests do that",
    r"\.venv/bin/ray": "a cluster: make test-ray has one",
    r"(gcloud|kubectl|docker|sky) ": "a cloud",
    r"tail -F": "does not end",
    r".*doctor --folder gs:": "a bucket",
    r".*benchmarks/": "a benchmark: minutes",
    r".*jaxwiz plan": "libtpu: make test-aot",
}
NAMES = {  # what a reader puts a name of their own in the place of
    "CONFIG.yaml": None,
    "CONFIG": "configs/train/quickstart.yaml",
    "LOOP.yaml": "configs/loop/wizardcoder-python-7b.yaml",
    "SHARDS": "runs/quickstart/data",
    "EVOLVED": "runs/quickstart/evolve",
    "CHECKPOINT": "runs/quickstart/train/model",
    "checkpoint=FOLDER": "checkpoint=runs/mine/train/model",
    "RUN...": "runs/quickstart/evaluate",
    "RUN": "runs/quickstart/train",
    "FILE": "serve.yaml",
    "<stage>": "train",
    "[a.b=value": "",
    "a.b=value": "",
    "...]": "",
    "...": "",
}
LINKS = {  # what pages have made in lines that are not theirs alone
    "runs/a": "runs/mine",
    "runs/b": "runs/quickstart",
    "runs/x": "runs/mine",
    "runs/base/evaluate": "runs/quickstart/evaluate",
    "runs/wizardcoder/convert": "runs/mine/model",
    "runs/wizardcoder/data": "runs/mine/data",
    "runs/wizardcoder/evolve": "runs/mine/evolve",
    "runs/wizardcoder-34b/train": "runs/mine/train",
}
SPECS = {"slurm.md": "wizardcoder-34b-h100.yaml", "ray.md": "wizardcoder-34b-h100.yaml"}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_layers": 2, "num_heads": 4}
SHAPE |= {"num_kv_heads": 2, "head_dim": 8, "max_positions": 4096}
MODELS = (
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "HuggingFaceTB/SmolLM2-360M-Instruct",
    "codellama/CodeLlama-34b-Python-hf",
)


def cases() -> Iterator[object]:
    for page in PAGES:
        for line in lines_to_type(page):
            words = line.split()
            is_name = words[0] == "jaxwiz" and len(words) == 2 and words[1] not in ("doctor", "stages")
            if not is_name and not any(re.match(pattern, line) for pattern in NOT_RUN):
                yield pytest.param(page, line, id=f"{page.name}: {line}")


def answer(prompt: str, before: int) -> Reply:
    """An endpoint that evolves a little."""
    return chat("Not Equal" if "verdict" in prompt else f"Write a function that returns {len(prompt)}.")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_folder: Path) -> Iterator["Desk"]:
    folder = tmp_path_factory.mktemp("desk")
    for name in ("configs", "jaxwiz", "launch"):
        (folder / name).symlink_to(ROOT / name)
    stand_in = folder / "bin" / "jaxwiz"
    stand_in.parent.mkdir()
    stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/tests/documents/stand_in.py" "$@"\n')
    stand_in.chmod(0o755)
    model = tiny_model(folder / "tiny", tiny_tokenizer_folder)
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    repositories = {f"models/{name}": files for name in MODELS}
    repositories["datasets/owner/name"] = {"train.jsonl": b'{"instruction": "Add 1.", "output": "1 + 1"}\n'}
    with local_hub(repositories) as hub, scripted_server(answer) as endpoint:
        environment = {
            **hub.environment(folder / "hub"),
            "PATH": f"{stand_in.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "JAXWIZ": str(stand_in),
            "OPENAI_API_KEY": "none",
            "ENDPOINT": endpoint.url,
            "MODEL": str(model),
        }
        yield Desk(folder, environment)


def tiny_model(folder: Path, tokenizer: Path) -> Path:
    """Makes a random model; returns it as a Hugging Face folder."""
    source = {"kind": "random", "model": SHAPE, "tokenizer": str(tokenizer)}
    made = {"kind": "checkpoint", "path": str(folder / "random" / "model")}
    for name, settings in (
        ("random", [f"source={json.dumps(source)}"]),
        ("hf", [f"source={json.dumps(made)}", "target=hf"]),
    ):
        command = [sys.executable, "-m", "jaxwiz.cli", "convert", *settings, f"out={folder / name}"]
        subprocess.run(command, check=True, capture_output=True)
    settings = folder / "hf" / "model" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": CHATML}))
    return settings.parent


def mbpp_tasks() -> Iterator[dict[str, object]]:
    """Yields tasks in the form of MBPP's whole file."""
    for number in range(1, 975):
        name = f"f{number}"
        asserts = [f"assert {name}({n}) == {n + number}" for n in range(3)]
        code = f"def {name}(n):\n    return n + {number}\n"
        yield {
            "task_id": number,
            "text": f"Add {number} to a number.",
            "code": code,
            "test_list": asserts,
            "test_setup_code": "",
            "challenge_test_list": [],
        }


class Desk:
    """The folder in which a reader types, with the files of their own that pages speak of."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self._environment = folder, environment
        seeds = [json.loads(line) for line in (ROOT / "jaxwiz/evolve/seeds/programming.jsonl").read_text().splitlines()]
        lines = [json.dumps({key: seed[key] for key in seed if key != "id"}) + "\n" for seed in seeds]
        (folder / "my-seeds.jsonl").write_text("".join(lines))
        (folder / "my.jsonl").write_text("".join(lines[60:]))
        (folder / "prompts.jsonl").write_text(
            '{"prompt": "Sort a list."}\n{"messages": [{"role": "user", "content": "Hi"}]}\n'
        )
        (folder / "head.py").write_text("def add(a, b):\n")
        (folder / "snippet.py").write_text("def f(values):\n    return sorted(values)[0]\n")
        (folder / "serve.yaml").write_text("slots: 2\n")
        (folder / "mbpp.jsonl").write_text("".join(json.dumps(task) + "\n" for task in mbpp_tasks()))

    def type(self, page: Path, line: str) -> "subprocess.CompletedProcess[str]":
        """Returns how a line ended; its words that stand for a reader's own are replaced."""
        spec = ROOT / "configs/launch" / SPECS.get(page.name, "wizardcoder-34b-v5p-128.yaml")
        (self.folder / "my-spec.yaml").write_text(spec.read_text())
        for link, meant in LINKS.items():
            if not os.path.lexists(
                self.folder / link
            ):  # a step may have moved it aside with a folder of another config
                (self.folder / link).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / link).symlink_to(self.folder / meant)
        tasks = ("Mbpp/2", "Mbpp/3") if "mbpp" in line else ("HumanEval/0", "HumanEval/1")
        answers = [json.dumps({"task_id": task, "completion": "    pass\n"}) + "\n" for task in tasks]
        (self.folder / "answers.jsonl").write_text("".join(answers))
        environment = dict(self._environment)
        if "launch/" in line and ("wizardcoder" in line or "my-spec" in line):
            environment["DRY_RUN"] = "1"
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {named(line)}"],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )


def named(line: str) -> str:
    """Returns a line with names in the place of placeholders."""
    if line == "make quickstart":
        return "jaxwiz run configs/pipeline/quickstart.yaml"
    words = line.partition(" && sky ")[0].split(" ")
    stage = words[1] if len(words) > 1 and words[1] in STAGES else "train"
    own = {**NAMES, "CONFIG.yaml": f"configs/{stage}/quickstart.yaml"}
    return " ".join(word for word in (own.get(word, word) for word in words) if word)


@pytest.mark.parametrize(("page", "line"), list(cases()))
def test_a_line_runs(desk: Desk, page: Path, line: str):
    missing = [path for kind, path in TASK_FILES.items() if f"{kind}." in line and not path.exists()]
    if missing:
        pytest.skip(f"needs ../shared/data/{missing[0].name}")
    done = desk.type(page, line)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def test_what_is_not_run_is_what_is_listed():
    lines = [line for page in PAGES for line in lines_to_type(page)]
    for pattern, reason in NOT_RUN.items():
        assert any(re.match(pattern, line) for line in lines), f"no page has a line for {pattern!r} ({reason})"
    assert all(shlex.split(line) for line in lines)
