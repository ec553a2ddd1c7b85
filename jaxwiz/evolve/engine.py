"""The algorithm: rounds over a pool, each item drawn, evolved, judged, answered, and kept or eliminated.

A round goes through its phases for all its items together: evolve, judge, answer, and score if that is asked for. Each
phase is one list of calls, as large as the round, which is what every backend wants, and an evolution rejected by one
phase costs no calls in the next. Nothing here depends on the order in which answers arrive. Decided tasks are handed on
and forgotten: memory holds the pool and one round.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

from jaxwiz.evolve import draw, eliminate
from jaxwiz.evolve.checks import CONTAMINATED, NEAR_DUPLICATE, Checks
from jaxwiz.evolve.config import CallConfig, EvolveConfig
from jaxwiz.evolve.journal import Call
from jaxwiz.evolve.operations import Prompts
from jaxwiz.evolve.pool import Slot, prompt_text
from jaxwiz.evolve.statistics import Statistics
from jaxwiz.llm.protocol import GenerationRequest, GenerationResult
from jaxwiz.records import EvolvedTask


class Ask(Protocol):
    """Answers the calls of a phase."""

    def __call__(self, calls: Sequence[Call], title: str) -> list[GenerationResult | None]:
        """Returns the answers in the order of `calls`; see `journal.JournaledGenerator.ask`."""


@dataclasses.dataclass
class _Candidate:
    """An evolution on its way through a round.

    Attributes:
      parent: the task it is made from.
      task: what is known of it so far; `rejected` is set as soon as a rule rejects it.
      is_waiting: whether one of its calls was not answered, since the budget is spent; it is neither kept nor rejected.
    """

    parent: EvolvedTask
    task: EvolvedTask
    is_waiting: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether it goes on to the next phase."""
        return not self.task.rejected and not self.is_waiting

    def update(self, *, instruction: str = "", output: str = "", rejected: str = "") -> None:
        """Sets what a phase has found."""
        self.task = dataclasses.replace(
            self.task,
            instruction=instruction or self.task.instruction,
            output=output or self.task.output,
            rejected=rejected,
        )


def evolve(
    seeds: Sequence[EvolvedTask],
    config: EvolveConfig,
    prompts: Prompts,
    ask: Ask,
    checks: Checks,
    take: Callable[[EvolvedTask], None],
) -> Statistics:
    """Runs all rounds, or as many as the budget has room for, and returns their counts.

    Args:
      seeds: tasks of round 0 with distinct ids.
      config: the stage's config.
      prompts: the wording of every operation that the config names.
      ask: answers calls.
      checks: what needs more than a task's own texts.
      take: is given each task once it is decided, kept or rejected: seeds, then round by round, in the pool's order.
    """
    return _Run(config, prompts, ask, checks, take).evolve(seeds)


class _Run:
    def __init__(
        self, config: EvolveConfig, prompts: Prompts, ask: Ask, checks: Checks, take: Callable[[EvolvedTask], None]
    ) -> None:
        self._config = config
        self._prompts = prompts
        self._ask = ask
        self._checks = checks
        self._take = take
        self._statistics = Statistics()

    def evolve(self, seeds: Sequence[EvolvedTask]) -> Statistics:
        pool = self._admit(seeds)
        for round_number in range(1, self._config.rounds + 1):
            if not self._statistics.complete:
                break
            self._run_round(pool, round_number)
        return self._statistics

    def _admit(self, seeds: Sequence[EvolvedTask]) -> list[Slot]:
        """Returns the pool: clean seeds. Those without an output are answered; where that fails they still evolve."""
        candidates = []
        for seed in seeds:
            if self._checks.is_contaminated(seed):
                self._decide(dataclasses.replace(seed, rejected=CONTAMINATED))
            else:
                candidates.append(_Candidate(parent=seed, task=seed))
        unanswered = [one for one in candidates if not one.task.output]
        self._take_answers(unanswered, self._results(self._answer_calls(unanswered, 0), "round 0: answer"))
        decided = [one for one in candidates if not one.is_waiting]
        self._statistics.waiting[0] += len(candidates) - len(decided)
        self._checks.near_duplicates([one.task for one in decided if one.is_alive])
        self._rate([one for one in decided if one.is_alive], 0)
        for one in decided:
            self._decide(one.task)
        return [Slot(dataclasses.replace(one.task, rejected="")) for one in candidates]

    def _run_round(self, pool: list[Slot], round_number: int) -> None:
        slots = pool
        if self._config.items_per_round is not None:
            roots = [slot.task.root for slot in pool]
            slots = draw.draw_subset(pool, roots, self._config.items_per_round, self._config.seed, round_number)
        candidates = self._draw(slots, round_number)
        self._evolve(candidates, round_number)
        self._judge_and_answer([one for one in candidates if one.is_alive], round_number)
        self._reject_duplicates([one for one in candidates if one.is_alive])
        self._rate([one for one in candidates if one.is_alive], round_number)
        for slot, candidate in zip(slots, candidates, strict=True):
            if candidate.is_waiting:
                self._statistics.waiting[round_number] += 1
            else:
                slot.advance(candidate.task)
                self._decide(candidate.task)

    def _decide(self, task: EvolvedTask) -> None:
        self._statistics.add(task)
        self._take(task)

    def _draw(self, slots: Sequence[Slot], round_number: int) -> list[_Candidate]:
        operations = draw.draw_operations(
            self._config.operations,
            self._config.quotas,
            self._config.seed,
            [(slot.task.id, slot.attempt) for slot in slots],
            round_number,
        )
        return [
            _Candidate(
                slot.task,
                EvolvedTask(
                    id=f"{slot.task.root}/r{round_number}",
                    instruction="",
                    input="",
                    output="",
                    root=slot.task.root,
                    parent=slot.task.id,
                    operation=operation,
                    round=round_number,
                    attempt=slot.attempt,
                ),
            )
            for slot, operation in zip(slots, operations, strict=True)
        ]

    def _evolve(self, candidates: Sequence[_Candidate], round_number: int) -> None:
        prompts = [self._prompts.operations[one.task.operation].prompt(prompt_text(one.parent)) for one in candidates]
        calls = self._calls("evolve", candidates, prompts, round_number)
        detectors = self._config.eliminate.detectors
        for one, result in zip(candidates, self._results(calls, f"round {round_number}: evolve"), strict=True):
            if result is None:
                one.is_waiting = True
                continue
            operation = self._prompts.operations[one.task.operation]
            reason = eliminate.fault_of_evolution(prompt_text(one.parent), result, operation, detectors)
            one.update(instruction=result.text.strip(), rejected=reason)
            if not reason and self._checks.is_contaminated(one.task):
                one.update(rejected=CONTAMINATED)

    def _judge_and_answer(self, candidates: Sequence[_Candidate], round_number: int) -> None:
        """Asks for verdicts and answers: in turn, so that what is judged equal costs no answer, or together."""
        prompts = [
            self._prompts.judge.render(first=prompt_text(one.parent), second=prompt_text(one.task))
            for one in candidates
        ]
        verdicts = self._calls("judge", candidates, prompts, round_number)
        if self._config.calls.together:
            answers = self._answer_calls(candidates, round_number)
            results = self._results([*verdicts, *answers], f"round {round_number}: judge and answer")
            self._take_verdicts(candidates, results[: len(verdicts)], round_number)
            left = [
                (one, result) for one, result in zip(candidates, results[len(verdicts) :], strict=True) if one.is_alive
            ]
            self._take_answers([one for one, _ in left], [result for _, result in left])
        else:
            results = self._results(verdicts, f"round {round_number}: judge")
            self._take_verdicts(candidates, results, round_number)
            alive = [one for one in candidates if one.is_alive]
            answers = self._answer_calls(alive, round_number)
            self._take_answers(alive, self._results(answers, f"round {round_number}: answer"))

    def _take_verdicts(
        self, candidates: Sequence[_Candidate], results: Sequence[GenerationResult | None], round_number: int
    ) -> None:
        for one, result in zip(candidates, results, strict=True):
            if result is None:
                one.is_waiting = True
                continue
            reason = eliminate.unfinished(result)
            is_read = reason in ("", "truncated")  # a judge that explains itself is cut behind its verdict
            verdict = eliminate.parse_verdict(result.text) if is_read else "unclear"
            self._statistics.add_verdict(round_number, verdict)
            if not is_read:
                one.update(rejected=f"judge_{reason}")
            elif verdict == "equal":
                one.update(rejected="judged_equal")
            elif verdict == "unclear" and self._config.eliminate.unclear_verdict == "reject":
                one.update(rejected="judged_unclear")

    def _take_answers(self, candidates: Sequence[_Candidate], results: Sequence[GenerationResult | None]) -> None:
        for one, result in zip(candidates, results, strict=True):
            if result is None:
                one.is_waiting = True
                continue
            reason = eliminate.fault_of_answer(result, self._config.eliminate.detectors)
            one.update(output=result.text.strip("\n").rstrip(), rejected=reason)
            if not reason and self._checks.is_contaminated(one.task):
                one.update(rejected=CONTAMINATED)
        alive = [one for one in candidates if one.is_alive]
        faults = self._checks.faults_of_running([one.task.output for one in alive])
        for one, fault in zip(alive, faults, strict=True):
            one.update(rejected=fault)

    def _reject_duplicates(self, candidates: Sequence[_Candidate]) -> None:
        repeats = self._checks.near_duplicates([one.task for one in candidates])
        for one, repeats_another in zip(candidates, repeats, strict=True):
            if repeats_another:
                one.update(rejected=NEAR_DUPLICATE)

    def _rate(self, candidates: Sequence[_Candidate], round_number: int) -> None:
        """Asks how difficult what is kept is. What a spent budget leaves without a score is kept without one."""
        if self._config.calls.difficulty is None:
            return
        prompts = [self._prompts.difficulty.render(task=prompt_text(one.task)) for one in candidates]
        calls = self._calls("difficulty", candidates, prompts, round_number)
        for one, result in zip(candidates, self._results(calls, f"round {round_number}: difficulty"), strict=True):
            if result is None:
                self._statistics.unrated += 1
            else:
                one.task = dataclasses.replace(one.task, difficulty=eliminate.parse_score(result.text))

    def _answer_calls(self, candidates: Sequence[_Candidate], round_number: int) -> list[Call]:
        """Asks for each task with nothing around it: the instruction alone is the prompt."""
        return self._calls("answer", candidates, [prompt_text(one.task) for one in candidates], round_number)

    def _calls(
        self, kind: str, candidates: Sequence[_Candidate], prompts: Sequence[str], round_number: int
    ) -> list[Call]:
        sampling: CallConfig = getattr(self._config.calls, kind)
        seed = self._config.seed
        return [
            Call(
                kind,
                round_number,
                GenerationRequest(
                    prompt=prompt,
                    seed=draw.sampling_seed(kind, seed, one.parent.id, round_number, one.task.attempt),
                    max_new_tokens=sampling.max_new_tokens,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                ),
            )
            for one, prompt in zip(candidates, prompts, strict=True)
        ]

    def _results(self, calls: Sequence[Call], title: str) -> list[GenerationResult | None]:
        return self._ask(calls, title) if calls else []
