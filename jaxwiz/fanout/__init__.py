"""Spreads work over the nodes of a Ray cluster, or does it right here: the same function either way.

    fan_out(config.engine, functools.partial(score_programs, settings), programs)

`work` is a function from a stream of (key, item) to a stream of (key, result). Here it is simply called; on a cluster
every node calls it with the items that it is given. Ray is imported for `engine: ray` only.
"""

from jaxwiz.fanout.config import EngineConfig, LocalEngine, RayEngine
from jaxwiz.fanout.stream import FanoutError, check_engine, fan_out

__all__ = ["EngineConfig", "FanoutError", "LocalEngine", "RayEngine", "check_engine", "fan_out"]
