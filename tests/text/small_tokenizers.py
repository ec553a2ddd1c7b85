"""Small tokenizers in the layout of well-known ones, and texts that are hard on any."""

import json
from pathlib import Path

from tests.conftest import PYTHON_LINES

LLAMA_3_SPLIT = "|".join(
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
LLAMA_3_CONTROLS = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|finetune_right_pad_id|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
)

HARD_TEXTS = (
    "\tdef f(x):\r\n\t\treturn x\r\n",
    "tabs\tand\t\ttabs  and   spaces    \n\n\n   then\n",
    "smile 😀, family 👨‍👩‍👧‍👦, flag 🇩🇪, skin 👍🏽",
    "漢字とかな交じり文。한국어 문장입니다。中文,标点!",
    "control \x00\x01\x07\x1b[31m and \x7f and \x85 and \u200b\u2028\ufeff",
    "e\u0301 is not é; ﬁ, ½, Å, ①",
    "ends in a space ",
    " begins with one",
    "\n\nbegins with line breaks",
    "١٢٣ and 12345678 and 3.14159e-10",
    "𝕬𝖇𝖈 𐍈 \U0010ffff",
    "a" * 300,
)


def write_llama_3(folder: Path, chat_template: str = "") -> Path:
    """Writes a tokenizer in Llama 3's layout, as its tiktoken ranks come in a tokenizer.json, and returns its folder.

    Its split pattern, BPE that takes whole words from the vocabulary first, special tokens after the ranks, BOS put in
    by the post-processor, EOS the token that ends a turn.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(PYTHON_LINES * 4, trainer)
    tokenizer.add_special_tokens(list(LLAMA_3_CONTROLS))
    bos = LLAMA_3_CONTROLS[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": bos, "eos_token": "<|eot_id|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    if chat_template:
        settings["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    return folder
