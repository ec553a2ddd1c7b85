"""Without a cluster: work is done right here, and Ray is neither needed nor touched."""

import functools
import subprocess
import sys

import pytest

from jaxwiz.config import ConfigError, parse_config, section
from jaxwiz.fanout import EngineConfig, LocalEngine, RayEngine, check_engine, fan_out
from jaxwiz.fanout.member import Member
from tests.fanout import work


@section
class Holder:
    engine: EngineConfig = LocalEngine()


def test_here_work_is_called_with_the_stream_itself() -> None:
    drawn = []

    def items():
        for number in range(5):
            drawn.append(number)
            yield number, number

    results = fan_out(LocalEngine(), functools.partial(work.square, 0.0), items())
    assert next(results) == (0, 0)
    assert drawn == [0]
    assert list(results) == [(1, 1), (2, 4), (3, 9), (4, 16)]


def test_an_engine_can_be_named_in_a_word() -> None:
    assert parse_config({"engine": "ray"}, Holder, "test").engine == RayEngine()
    assert parse_config({"engine": {"kind": "ray", "address": "10.0.0.1:6379"}}, Holder, "test").engine == RayEngine(
        address="10.0.0.1:6379"
    )
    with pytest.raises(ConfigError, match=r"engine.kind = 'slurm': must be one of 'local', 'ray'"):
        parse_config({"engine": "slurm"}, Holder, "test")
    with pytest.raises(ConfigError, match=r"engine.address = '10.0.0.1'"):
        parse_config({"engine": {"kind": "ray", "address": "10.0.0.1"}}, Holder, "test")


def test_local_work_never_imports_ray_and_its_lack_names_the_extra() -> None:
    code = """
import sys
sys.modules["ray"] = None  # as if it were not installed
from jaxwiz.fanout import FanoutError, LocalEngine, RayEngine, fan_out
assert list(fan_out(LocalEngine(), iter, [(1, 2)])) == [(1, 2)]
try:
    list(fan_out(RayEngine(), iter, [(1, 2)]))
except FanoutError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "engine.kind = 'ray': Ray is not installed; install the extra, `pip install 'jaxwiz[ray]'`, or set "
        "engine=local\n"
    )


def test_local_needs_no_check() -> None:
    assert check_engine(LocalEngine()) == []


def test_a_member_answers_shards_and_goes_on_between_them() -> None:
    member = Member(functools.partial(work.square, 0.0))
    assert member.do([(1, 1), (2, 2)]) == [(1, 1), (2, 4)]
    assert member.do([(3, 3)]) == [(3, 9)]


def test_a_member_whose_work_fails_says_so_to_every_shard() -> None:
    member = Member(work.fail)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            member.do([(4, 4), (5, 5), (6, 6)])


def test_work_that_ends_early_is_a_bug_and_no_silence() -> None:
    member = Member(lambda items: iter([next(items)]))
    with pytest.raises(RuntimeError, match="ended while there may be more"):
        member.do([(1, 1), (2, 2)])
