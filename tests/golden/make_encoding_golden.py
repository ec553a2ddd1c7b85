"""Writes what `transformers` makes of hard texts: the goldens of tests/text/test_encoding_golden.py.

    PYTHONPATH=. python tests/golden/make_encoding_golden.py ../shared/data/llama2-tokenizer.model     (parity extra)

Written beside this script: encoding.json, with token ids of SmolLM2's, Llama 2's and a small Llama-3-style tokenizer,
and that small tokenizer itself, since training one again may break ties another way.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import transformers
from encoding_cases import GOLDEN_TEXTS, llama_2_reference
from smollm2_cases import fetch_smollm2, reference_tokenizer

from tests.text.small_tokenizers import write_llama_3

HERE = Path(__file__).parent


def main() -> None:
    """Computes and writes the file."""
    with tempfile.TemporaryDirectory() as scratch:
        llama_2, llama_3 = Path(scratch) / "2", write_llama_3(Path(scratch) / "3")
        llama_2.mkdir()
        shutil.copy(sys.argv[1], llama_2 / "tokenizer.model")
        references = {
            "smollm2": reference_tokenizer(fetch_smollm2()),
            "llama2": llama_2_reference(llama_2),
            "llama3": transformers.AutoTokenizer.from_pretrained(llama_3),
        }
        files = {path.name: json.loads(path.read_text()) for path in sorted(llama_3.iterdir())}
    ids = {name: theirs(list(GOLDEN_TEXTS), add_special_tokens=False).input_ids for name, theirs in references.items()}
    record = {"transformers": transformers.__version__, "llama3_files": files, "ids": ids}
    (HERE / "encoding.json").write_text(json.dumps(record, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
