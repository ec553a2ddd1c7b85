"""Writes what `transformers` computes with SmolLM2-135M-Instruct: the goldens of tests/convert/test_smollm2_golden.py.

    python tests/golden/make_smollm2_golden.py        (needs the parity extra: torch on CPU, transformers, accelerate)

transformers reads the same GGUF file through its own loader, its own dequantisation and its own undoing of llama.cpp's
rotary order, so nothing of jaxwiz is between the file and these numbers. jaxwiz only fetches the file.

Written beside this script: smollm2.json (texts, tokens, greedy continuations, versions) and smollm2_logits.npz.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from smollm2_cases import (
    FULL_VOCABULARY_POSITIONS,
    GREEDY_TOKENS,
    LONG_POSITIONS,
    LONG_TEXT,
    POSITION_STRIDE,
    PROMPTS,
    SHORT_TEXT,
    TEXTS,
    VOCABULARY_SAMPLE,
    fetch_smollm2,
    reference_tokenizer,
)

HERE = Path(__file__).parent


def main() -> None:
    """Computes and writes both files."""
    torch.set_num_threads(2)
    path = fetch_smollm2()
    tokenizer = reference_tokenizer(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    model.eval()
    model.generation_config.eos_token_id = None  # always all the tokens, whatever they are
    short = tokenizer(SHORT_TEXT, add_special_tokens=False).input_ids[:8]
    long = tokenizer(LONG_TEXT, add_special_tokens=False).input_ids[:LONG_POSITIONS]
    assert len(short) == 8 and len(long) == LONG_POSITIONS
    prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in PROMPTS]
    continuations, margin = greedy(model, prompts)
    sample = np.sort(np.random.default_rng(0).choice(model.config.vocab_size, VOCABULARY_SAMPLE, replace=False))
    arrays = {"vocabulary_sample": sample.astype(np.int32)}
    for name, tokens, positions in (
        ("short", short, np.arange(8)),
        ("long", long, np.arange(POSITION_STRIDE - 1, LONG_POSITIONS, POSITION_STRIDE)),
    ):
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].numpy()
        arrays |= {
            f"{name}_tokens": np.array(tokens, np.int32),
            f"{name}_positions": positions.astype(np.int32),
            f"{name}_logits": logits[np.ix_(positions, sample)],
            f"{name}_argmax": logits[positions].argmax(-1).astype(np.int32),
            f"{name}_max": logits[positions].max(-1),
            f"{name}_full": logits[-FULL_VOCABULARY_POSITIONS:],
        }
    np.savez_compressed(HERE / "smollm2_logits.npz", **arrays)
    record = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "smallest_greedy_margin": margin,
        "prompts": [
            {"text": text, "tokens": tokens, "greedy": continuation, "greedy_text": tokenizer.decode(continuation)}
            for text, tokens, continuation in zip(PROMPTS, prompts, continuations, strict=True)
        ],
        "texts": [
            {"text": text, "tokens": tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids}
            for text in TEXTS
        ],
    }
    (HERE / "smollm2.json").write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"smallest margin between the best two tokens of all greedy steps: {margin:.4f} (must be far above 1e-3)")


def greedy(model: transformers.PreTrainedModel, prompts: list[list[int]]) -> tuple[list[list[int]], float]:
    """Returns each prompt's greedy continuation, and the smallest lead that any chosen token had over the next."""
    continuations, margins = [], []
    for tokens in prompts:
        row = torch.tensor([tokens])
        done = model.generate(
            row,
            attention_mask=torch.ones_like(
                row
            ),  # else it hides token 2 of the prompt, the end of a turn: it is the pad token
            max_new_tokens=GREEDY_TOKENS,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
        continuations.append(done.sequences[0, len(tokens) :].tolist())
        best_two = torch.stack(done.logits)[:, 0].topk(2).values
        margins.append(float((best_two[:, 0] - best_two[:, 1]).min()))
    return continuations, min(margins)


if __name__ == "__main__":
    main()
