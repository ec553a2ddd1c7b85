"""A SentencePiece `tokenizer.model` from a GGUF's vocabulary (`tokenizer.ggml.model = llama`).

GGUF keeps what SentencePiece's encoder needs: each piece, its score (the order of merges) and its type, in
SentencePiece's own numbers. What it leaves out is the same for every Llama tokenizer and is written here: byte-pair
merges, no normalisation, spaces kept as they are. The result encodes as the original model does; it is not the same
file, since GGUF drops how the vocabulary was trained.
"""

from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from jaxwiz.convert.names import ConversionError

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6  # values of tokenizer.ggml.token_type
_SPACE = "\u2581"  # how SentencePiece spells a space within a piece


def write_sentencepiece(metadata: dict[str, Any], tokens: list[str], path: Path, where: str) -> None:
    """Writes a tokenizer.model to `path`.

    Args:
      metadata: the GGUF's metadata.
      tokens: its pieces.
      path: where the file goes.
      where: the GGUF's path, for messages.

    Raises:
      ConversionError: scores or types are missing, or SentencePiece does not accept the vocabulary.
    """
    model = _model(metadata, tokens, where)
    data = model.SerializeToString()
    try:
        sentencepiece.SentencePieceProcessor(model_proto=data)
    except (RuntimeError, ValueError) as error:
        raise ConversionError(
            f"{where}: SentencePiece does not accept the vocabulary in tokenizer.ggml ({error}); convert the model's "
            "Hugging Face folder instead"
        ) from None
    path.write_bytes(data)


def _model(metadata: dict[str, Any], tokens: list[str], where: str) -> Any:
    columns = {name: metadata.get(f"tokenizer.ggml.{name}", []) for name in ("scores", "token_type")}
    for name, column in columns.items():
        if len(column) != len(tokens):
            raise ConversionError(
                f"{where}: tokenizer.ggml.{name} has {len(column)} entries for {len(tokens)} tokens; the file is "
                "damaged or was made without them, convert the model's Hugging Face folder instead"
            )
    roles = {role: metadata.get(f"tokenizer.ggml.{key}_token_id") for role, key in _ROLES.items()}
    ends = {roles["bos"], roles["eos"]}
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    for index, (token, score, kind) in enumerate(zip(tokens, columns["scores"], columns["token_type"], strict=True)):
        if kind == _USER_DEFINED:
            token = token.replace(" ", _SPACE)  # llama.cpp's converter spells these as plain text
        if kind == _NORMAL and index in ends:
            kind = _CONTROL  # old converters left the type out
        model.pieces.add(piece=token, score=score, type=kind)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type = trainer.BPE
    trainer.vocab_size = len(tokens)
    trainer.byte_fallback = _BYTE in columns["token_type"]
    for role, token_id in roles.items():
        setattr(trainer, f"{role}_id", -1 if token_id is None else token_id)
        if token_id is not None and (role != "unk" or columns["token_type"][token_id] == _UNKNOWN):
            setattr(trainer, f"{role}_piece", tokens[token_id])
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    normalizer.remove_extra_whitespaces = bool(metadata.get("tokenizer.ggml.remove_extra_whitespaces", False))
    return model


_ROLES = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
