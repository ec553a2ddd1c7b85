"""The algorithm: rounds over a pool, each item drawn, evolved, judged, answered, and kept or eliminated.

A round goes through its phases for all its items together: evolve, judge, answer. Each phase is one list of requests,
as large as the round, which is what every backend wants, and an evolution rejected by one phase costs no calls in the
next. Nothing here depends on the order in which answers arrive.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

from jaxwiz.evolve import draw, eliminate
from jaxwiz.evolve.config import CallConfig, EvolveConfig
from jaxwiz.evolve.operations import Prompts
from jaxwiz.evolve.pool import Slot, prompt_text
from jaxwiz.llm.protocol import GenerationRequest, GenerationResult
from jaxwiz.records import EvolvedTask

CONTAMINATED = "contaminated"


class Ask(Protocol):
    """Answers the requests of a phase."""

    def __call__(self, kind: str, requests: Sequence[GenerationRequest], title: str) -> list[GenerationResult]:
        """Returns the answers in the order of `requests`; see `journal.JournaledGenerator.ask`."""


IsContaminated = Callable[[EvolvedTask], bool]


@dataclasses.dataclass
class Evolution:
    """What a run made.

    Attributes:
      seeds: kept seeds in their order.
      evolved: kept evolutions by round, in the pool's order.
      rejected: rejected seeds and evolutions with their reasons, in the order of rejection.
      verdicts: the judge's verdicts and how often each came.
    """

    seeds: list[EvolvedTask] = dataclasses.field(default_factory=list)
    evolved: list[EvolvedTask] = dataclasses.field(default_factory=list)
    rejected: list[EvolvedTask] = dataclasses.field(default_factory=list)
    verdicts: dict[str, int] = dataclasses.field(default_factory=lambda: {"equal": 0, "not_equal": 0, "unclear": 0})

    def training_set(self, seed: int) -> list[EvolvedTask]:
        """Returns seeds and evolutions of all rounds, shuffled by `seed`."""
        by_id = {task.id: task for task in (*self.seeds, *self.evolved)}
        return [by_id[name] for name in draw.shuffled(by_id, seed)]


@dataclasses.dataclass
class _Candidate:
    """An evolution on its way through a round.

    Attributes:
      parent: the task it is made from.
      task: what is known of it so far; `rejected` is set as soon as a rule rejects it.
    """

    parent: EvolvedTask
    task: EvolvedTask

    def update(self, *, instruction: str = "", output: str = "", rejected: str = "") -> None:
        self.task = dataclasses.replace(
            self.task,
            instruction=instruction or self.task.instruction,
            output=output or self.task.output,
            rejected=rejected,
        )


def evolve(
    seeds: Sequence[EvolvedTask], config: EvolveConfig, prompts: Prompts, ask: Ask, is_contaminated: IsContaminated
) -> Evolution:
    """Returns the outcome of all rounds.

    Args:
      seeds: tasks of round 0 with distinct ids.
      config: the stage's config.
      prompts: the wording of every operation that the config names.
      ask: answers requests.
      is_contaminated: says whether a task's texts contain a benchmark task.
    """
    return _Run(config, prompts, ask, is_contaminated).evolve(seeds)


class _Run:
    def __init__(self, config: EvolveConfig, prompts: Prompts, ask: Ask, is_contaminated: IsContaminated) -> None:
        self._config = config
        self._prompts = prompts
        self._ask = ask
        self._is_contaminated = is_contaminated
        self._outcome = Evolution()

    def evolve(self, seeds: Sequence[EvolvedTask]) -> Evolution:
        pool = self._admit(seeds)
        for round_number in range(1, self._config.rounds + 1):
            self._run_round(pool, round_number)
        return self._outcome

    def _admit(self, seeds: Sequence[EvolvedTask]) -> list[Slot]:
        """Returns the pool: clean seeds. Those without an output are answered; where that fails they still evolve."""
        pool, candidates = [], []
        for seed in seeds:
            if self._is_contaminated(seed):
                self._outcome.rejected.append(dataclasses.replace(seed, rejected=CONTAMINATED))
            else:
                candidates.append(_Candidate(parent=seed, task=seed))
        self._answer([one for one in candidates if not one.task.output], round_number=0)
        for candidate in candidates:
            pool.append(Slot(dataclasses.replace(candidate.task, rejected="")))
            (self._outcome.rejected if candidate.task.rejected else self._outcome.seeds).append(candidate.task)
        return pool

    def _run_round(self, pool: list[Slot], round_number: int) -> None:
        slots = pool
        if self._config.items_per_round is not None:
            roots = [slot.task.root for slot in pool]
            slots = draw.draw_subset(pool, roots, self._config.items_per_round, self._config.seed, round_number)
        candidates = [self._draw(slot, round_number) for slot in slots]
        self._evolve(candidates, round_number)
        self._judge(_alive(candidates), round_number)
        self._answer(_alive(candidates), round_number)
        for slot, candidate in zip(slots, candidates, strict=True):
            slot.advance(candidate.task)
            (self._outcome.rejected if candidate.task.rejected else self._outcome.evolved).append(candidate.task)

    def _draw(self, slot: Slot, round_number: int) -> _Candidate:
        parent = slot.task
        task = EvolvedTask(
            id=f"{parent.root}/r{round_number}",
            instruction="",
            input="",
            output="",
            root=parent.root,
            parent=parent.id,
            operation=draw.draw_operation(
                self._config.operations, self._config.seed, parent.id, round_number, slot.attempt
            ),
            round=round_number,
            attempt=slot.attempt,
        )
        return _Candidate(parent, task)

    def _evolve(self, candidates: Sequence[_Candidate], round_number: int) -> None:
        prompts = [self._prompts.operations[one.task.operation].prompt(prompt_text(one.parent)) for one in candidates]
        for one, result in zip(candidates, self._answers("evolve", candidates, prompts, round_number), strict=True):
            operation = self._prompts.operations[one.task.operation]
            reason = eliminate.fault_of_evolution(prompt_text(one.parent), result, operation, self._config.detectors)
            one.update(instruction=result.text.strip(), rejected=reason)
            if not reason and self._is_contaminated(one.task):
                one.update(rejected=CONTAMINATED)

    def _judge(self, candidates: Sequence[_Candidate], round_number: int) -> None:
        prompts = [
            self._prompts.judge.render(first=prompt_text(one.parent), second=prompt_text(one.task))
            for one in candidates
        ]
        for one, result in zip(candidates, self._answers("judge", candidates, prompts, round_number), strict=True):
            verdict = eliminate.parse_verdict(result.text)
            self._outcome.verdicts[verdict] += 1
            if verdict == "equal":
                one.update(rejected="judged_equal")
            elif verdict == "unclear" and self._config.unclear_verdict == "reject":
                one.update(rejected="judged_unclear")

    def _answer(self, candidates: Sequence[_Candidate], round_number: int) -> None:
        """Asks for each task with nothing around it: the instruction alone is the prompt."""
        prompts = [prompt_text(one.task) for one in candidates]
        for one, result in zip(candidates, self._answers("answer", candidates, prompts, round_number), strict=True):
            reason = eliminate.fault_of_answer(result, self._config.detectors)
            one.update(output=result.text.strip("\n").rstrip(), rejected=reason)
            if not reason and self._is_contaminated(one.task):
                one.update(rejected=CONTAMINATED)

    def _answers(
        self, kind: str, candidates: Sequence[_Candidate], prompts: Sequence[str], round_number: int
    ) -> list[GenerationResult]:
        sampling: CallConfig = getattr(self._config, kind)
        requests = [
            GenerationRequest(
                prompt=prompt,
                seed=draw.sampling_seed(kind, self._config.seed, one.parent.id, round_number, one.task.attempt),
                max_new_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
            )
            for one, prompt in zip(candidates, prompts, strict=True)
        ]
        return self._ask(kind, requests, f"round {round_number}: {kind}") if requests else []


def _alive(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    return [one for one in candidates if not one.task.rejected]
