"""Calls made on the nodes of a cluster: `engine: ray`.

The calls of a phase, one for each item of the pool, are cut into blocks, and each node answers block after block with a
generator of its own. The process that runs the rounds stays the only one that decides anything, so the bytes are those
of a local run. A node journals a block's answers as they come, in a file of the block's own in `out`: whoever gets the
block after a node was lost, or a run that is started again, takes the answers from there. For that, `out` must lie on a
file system that all nodes share; elsewhere a lost node's unfinished blocks are asked for again.

Limits of a generator (requests a minute, in flight) hold on each node.
"""

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxwiz.evolve.journal import Journal
from jaxwiz.fanout import RayEngine, fan_out
from jaxwiz.llm.backends import make_generator
from jaxwiz.llm.config import BackendConfig, JaxBackend, OpenAIBackend, OpenAIBatchBackend
from jaxwiz.llm.protocol import Activity, GenerationError, GenerationRequest, GenerationResult, OnResults
from jaxwiz.llm.recording import RecordedAnswer, request_key

BLOCKS = "blocks"
ROUNDS_OF_FLIGHT = 4  # calls of a block, in units of what a node has in flight: few, so that little waits for a block

Block = Sequence[GenerationRequest]


class NodesGenerator:
    """Answers on all nodes of a cluster.

    Attributes:
      name: that of the generator on each node.
      activity: calls that are out with nodes count as in flight.
    """

    def __init__(self, engine: RayEngine, backend: BackendConfig, work: Path, journal: Journal) -> None:
        """Prepares the calls, and takes what an earlier run's nodes have left into its journal.

        Args:
          engine: the cluster.
          backend: the generator of each node.
          work: folder that all nodes share.
          journal: the run's.

        Raises:
          GenerationError: a generator that can't be made, or that answers in batches of its own.
        """
        if isinstance(backend, OpenAIBatchBackend):
            raise GenerationError("engine.kind = 'ray': the Batch API needs one process only; set engine=local")
        self.name = make_generator(backend, work).name
        self.activity = Activity()
        self._engine = engine
        self._backend = backend
        self._blocks = work.absolute() / BLOCKS
        for left in sorted(self._blocks.glob("*.jsonl")):
            journal.absorb(left)

    def generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        """Answers all requests, in blocks; see `TextGenerator`."""
        size = _block_size(self._backend)
        blocks = {start: requests[start : start + size] for start in range(0, len(requests), size)}
        work = functools.partial(answer_blocks, self._backend, self._blocks)
        self.activity.in_flight = len(requests)
        for start, results in fan_out(self._engine, work, blocks.items(), ahead=1):
            on_results({start + place: result for place, result in enumerate(results)})
            self._path(blocks[start]).unlink(missing_ok=True)
            self.activity.in_flight -= len(results)

    def _path(self, block: Block) -> Path:
        return block_path(self._blocks, self.name, block)


def answer_blocks(
    backend: BackendConfig, folder: Path, blocks: Iterator[tuple[int, Block]]
) -> Iterator[tuple[int, list[GenerationResult]]]:
    """Yields the answers to each block, in the order of its requests; what a block's journal holds isn't asked again.

    Args:
      backend: the generator, which is made once.
      folder: where journals of blocks lie.
      blocks: (name, requests) pairs.
    """
    generator = make_generator(backend, folder.parent)
    for number, block in blocks:
        keys = [bytes.fromhex(request_key(generator.name, request)) for request in block]
        with Journal(block_path(folder, generator.name, block)) as journal:
            missing = [index for index, key in enumerate(keys) if key not in journal]

            def keep(
                results: Mapping[int, GenerationResult],
                journal: Journal = journal,
                names: Sequence[str] = tuple(keys[index].hex() for index in missing),
            ) -> None:
                journal.append(
                    [RecordedAnswer(names[at], generator.name, "node", result) for at, result in results.items()]
                )

            generator.generate_all([block[index] for index in missing], keep)
            yield number, [journal[key] for key in keys]


def block_path(folder: Path, generator: str, block: Block) -> Path:
    """Returns where the journal of a block lies: its name says which calls it holds."""
    digest = hashlib.sha256("".join(request_key(generator, request) for request in block).encode())
    return folder / f"{digest.hexdigest()[:24]}.jsonl"


def _block_size(backend: BackendConfig) -> int:
    if isinstance(backend, OpenAIBackend):
        return ROUNDS_OF_FLIGHT * backend.max_in_flight
    return ROUNDS_OF_FLIGHT * backend.batch_size if isinstance(backend, JaxBackend) else 256
