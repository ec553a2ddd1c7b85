"""Evol-Instruct: seed instructions evolve, round by round, into a harder and wider set with answers.

    seeds -> [ draw an operation -> evolve -> judge -> answer -> eliminate ] x rounds -> evolved.jsonl, rejected.jsonl

`engine` is the algorithm, `operations` and `prompts/` are its wording, `eliminate` its rules, `draw` its only source of
chance, and `journal` what makes a killed run continue without asking anything twice. In a notebook:

    from jaxwiz.evolve import OpenAIBackend, evolve, make_generator

    generator = make_generator(OpenAIBackend(base_url="https://api.openai.com/v1", model="gpt-4o-mini"), Path("runs"))
    made = evolve(["Sort a list."], generator, Path("runs/journal.jsonl"), rounds=2)

Names are imported when they are first used, so that a config needs no more of this package than itself.
"""

import importlib
from typing import Any

_HOMES = {
    "Activity": "jaxwiz.llm.protocol",
    "BudgetConfig": "jaxwiz.evolve.config",
    "CallConfig": "jaxwiz.evolve.config",
    "CallsConfig": "jaxwiz.evolve.config",
    "EliminateConfig": "jaxwiz.evolve.config",
    "Evolution": "jaxwiz.evolve.rows",
    "EvolveConfig": "jaxwiz.evolve.config",
    "GenerationRequest": "jaxwiz.llm.protocol",
    "GenerationResult": "jaxwiz.llm.protocol",
    "OpenAIBackend": "jaxwiz.llm.config",
    "OpenAIBatchBackend": "jaxwiz.llm.config",
    "PricesConfig": "jaxwiz.evolve.config",
    "Seed": "jaxwiz.records",
    "TextGenerator": "jaxwiz.llm.protocol",
    "WIZARDCODER": "jaxwiz.evolve.library",
    "WIZARDLM": "jaxwiz.evolve.library",
    "evolve": "jaxwiz.evolve.library",
    "make_generator": "jaxwiz.llm.backends",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
