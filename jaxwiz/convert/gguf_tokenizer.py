"""The tokenizer's files from a GGUF's vocabulary: a byte-level BPE as tokenizer.json, SentencePiece as tokenizer.model.

GGUF names the rule by which a byte-level BPE splits text before merging (`tokenizer.ggml.pre`) but does not contain it;
the rules known here are those of `_SPLITS`, another one is refused.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from jaxwiz.convert.gguf_sentencepiece import write_sentencepiece
from jaxwiz.convert.names import ConversionError

_DIGITS = pre_tokenizers.Digits(individual_digits=True)
_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)  # splits by GPT-2's pattern, then spells out bytes
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _by(pattern: str) -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


# Rule -> the steps of its pre-tokenizer, as in the models' own tokenizer.json.
_SPLITS: dict[str, tuple[pre_tokenizers.PreTokenizer, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": (_DIGITS, _GPT2),
    "starcoder": (_DIGITS, _GPT2),
    "llama-bpe": (
        _by(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        _BYTES,
    ),
    "deepseek-coder": (
        _by(r"[\r\n]"),
        _by(r"\s?\p{L}+"),
        _by(r"\s?\p{P}+"),
        _by("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"),
        _DIGITS,
        _BYTES,
    ),
}
# Llama 3 keeps a whole word that is a token, without asking how merges would have made it.
_IGNORES_MERGES = ("llama-bpe",)

_CONTROL, _USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type


def write_tokenizer(metadata: dict[str, Any], folder: Path, where: str) -> dict[str, int | None]:
    """Writes tokenizer.json or tokenizer.model, tokenizer_config.json and generation_config.json into `folder`.

    Args:
      metadata: the GGUF's metadata.
      folder: an existing folder.
      where: the GGUF's path, for messages.

    Returns:
      {"bos_token_id", "eos_token_id", "pad_token_id"}, None where there is none.

    Raises:
      ConversionError: a kind of tokenizer that cannot be rebuilt.
    """
    tokens: list[str] = _field(metadata, "tokens", where)
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in _SPECIAL_IDS.items()}
    if ids["eos_token"] is None:
        raise ConversionError(f"{where}: tokenizer.ggml.eos_token_id is missing; generation would never end")
    kind = _field(metadata, "model", where)
    if kind not in ("gpt2", "llama"):
        raise ConversionError(
            f"{where}: tokenizer.ggml.model = {kind!r}: must be 'gpt2' (byte-level BPE) or 'llama' (SentencePiece); "
            "convert the model's Hugging Face folder instead"
        )
    pieces = kind == "llama"
    if pieces:
        write_sentencepiece(metadata, tokens, folder / "tokenizer.model", where)
    else:
        _build(metadata, tokens, where).save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "LlamaTokenizer" if pieces else "PreTrainedTokenizerFast",
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", pieces)),
        "add_prefix_space": bool(metadata.get("tokenizer.ggml.add_space_prefix", pieces)),
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata["llama.context_length"],
        **{name: tokens[token_id] for name, token_id in ids.items() if token_id is not None},
    }
    if "tokenizer.chat_template" in metadata:
        settings["chat_template"] = metadata["tokenizer.chat_template"]
    generation_ids = {f"{name}_id": ids[name] for name in ("bos_token", "eos_token", "pad_token")}
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "generation_config.json", {k: v for k, v in generation_ids.items() if v is not None})
    return generation_ids


_SPECIAL_IDS = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}


def _build(metadata: dict[str, Any], tokens: list[str], where: str) -> Tokenizer:
    pre = metadata.get("tokenizer.ggml.pre")
    if pre not in _SPLITS:
        raise ConversionError(
            f"{where}: tokenizer.ggml.pre = {pre!r}: known are {', '.join(_SPLITS)}; "
            "convert the model's Hugging Face folder instead"
        )
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ConversionError(f"{where}: tokenizer.ggml.tokens names tokens twice; the file is damaged")
    merges = [tuple(merge.split(" ")) for merge in _field(metadata, "merges", where)]
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=pre in _IGNORES_MERGES))
    except Exception as error:  # the library raises bare Exception for merges outside the vocabulary
        raise ConversionError(f"{where}: tokenizer.ggml.merges do not fit the vocabulary ({error})") from None
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(_SPLITS[pre]))
    tokenizer.decoder = decoders.ByteLevel()
    types = metadata.get("tokenizer.ggml.token_type", [])
    tokenizer.add_special_tokens(_added(tokens, types, _CONTROL))
    tokenizer.add_tokens(_added(tokens, types, _USER_DEFINED))
    return tokenizer


def _added(tokens: list[str], types: list[int], wanted: int) -> list[AddedToken]:
    return [AddedToken(token, normalized=False) for token, kind in zip(tokens, types, strict=False) if kind == wanted]


def _field(metadata: dict[str, Any], name: str, where: str) -> Any:
    try:
        return metadata[f"tokenizer.ggml.{name}"]
    except KeyError:
        raise ConversionError(f"{where}: tokenizer.ggml.{name} is missing; this GGUF carries no tokenizer") from None


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
