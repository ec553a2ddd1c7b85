"""Tokenizers behind one small interface: Hugging Face's tokenizer.json and SentencePiece's tokenizer.model.

Text is only ever text here: a control token's string inside a user's text is encoded as ordinary characters, and no
BOS or EOS is added. Control tokens enter a sequence by their id alone (`special_id`, `bos_id`, `eos_id`), so a user
cannot forge the end of a turn. The files a tokenizer was made from are kept byte for byte (`save`).

SentencePiece vocabularies put a space before a text ("dummy prefix"). A text that continues another one must not get
it, or "### Response:" + "def" would read "### Response: def": such text is encoded with `continues=True`, and decoded
so too. Byte-level vocabularies have no such prefix, and both forms are the same there.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jaxwiz.text.heads import can_cut, encode_with_shared_heads
from jaxwiz.text.tokenizer_files import MODEL_FILES, TOKENIZER_FILES, ControlToken, TokenizerError, TokenizerFiles

if TYPE_CHECKING:
    import sentencepiece
    import tokenizers


class Tokenizer(Protocol):
    """Text to ids and back. Can be pickled.

    Attributes:
      vocab_size: V, one more than the largest id.
      bos_id: the token that begins a text, or None if there is none.
      eos_id: the token that ends a text.
      pad_id: fills what is left of a row; may equal `eos_id`, since padding is known by segment 0, never by its id.
      adds_bos: whether the tokenizer's own settings begin every text with BOS. False for chat models whose "BOS" is
        really a turn marker, as in SmolLM2.
      controls: its control tokens.
      roles: the strings of some of them by what chat templates call them, such as "bos_token".
      chat_template: the Jinja text that came with it, or None.
      digest: SHA-256 over the names and contents of its files.
    """

    vocab_size: int
    bos_id: int | None
    eos_id: int
    pad_id: int
    adds_bos: bool
    controls: tuple[ControlToken, ...]
    roles: dict[str, str]
    chat_template: str | None
    digest: str

    def encode(self, text: str, continues: bool = False) -> list[int]:
        """Returns the ids of `text`, none of them a control token.

        Args:
          text: any text; the strings of control tokens in it count as plain characters.
          continues: whether other text stands before it in the same sequence.
        """

    def encode_batch(self, texts: Sequence[str], continues: bool = False) -> list[list[int]]:
        """Returns `encode` of each text, computed together on all cores."""

    def special_id(self, token: str) -> int:
        """Returns the id of a control token by its exact string.

        Raises:
          TokenizerError: there is no such control token.
        """

    def decode(self, ids: Sequence[int], continues: bool = False) -> str:
        """Returns the text of `ids`; control tokens and ids beyond the vocabulary are left out.

        Args:
          ids: token ids.
          continues: whether `ids` continue a text, as a generated answer does; keeps its leading space.
        """

    def save(self, folder: Path) -> None:
        """Writes the original files, unchanged, into `folder`, which is created if need be."""


def load_tokenizer(path: Path) -> Tokenizer:
    """Returns the tokenizer in a folder: tokenizer.json if there is one, else tokenizer.model.

    Args:
      path: a tokenizer's folder, a Hugging Face model's folder, a checkpoint (a folder with `tokenizer/` in it), or a
        single tokenizer.json or SentencePiece .model file.

    Raises:
      TokenizerError: no tokenizer is there, a file is broken, or nothing says which token ends a text.
    """
    folder = path / "tokenizer" if (path / "tokenizer").is_dir() else path
    if folder.is_file():
        name = "tokenizer.model" if folder.suffix == ".model" else "tokenizer.json"
        contents = {name: folder.read_bytes()}
    else:
        names = (*TOKENIZER_FILES, *MODEL_FILES)
        contents = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    source = TokenizerFiles(folder, contents)
    if "tokenizer.json" in contents:
        return HuggingFaceTokenizer(source)
    if "tokenizer.model" in contents:
        return SentencePieceTokenizer(source)
    raise TokenizerError(f"{path}: holds neither tokenizer.json nor tokenizer.model; give a tokenizer's folder")


class HuggingFaceTokenizer:
    """A tokenizer.json, run by the tokenizers package. See `Tokenizer` for its methods."""

    def __init__(self, source: TokenizerFiles) -> None:
        spec = source.parse("tokenizer.json")
        _call_special(spec, source.control_names())
        self._source = source
        self._can_cut = can_cut(spec)
        self._whole = _build(spec, source.folder)
        continuing = _without_leading_space(spec)
        self._continuing = self._whole if continuing == spec else _build(continuing, source.folder)
        self.controls = tuple(
            ControlToken(token.content, index, token.lstrip, token.rstrip)
            for index, token in self._whole.get_added_tokens_decoder().items()
            if token.special
        )
        self._special = {token.text: token.id for token in self.controls}
        self.roles = source.roles()
        self.chat_template = source.chat_template()
        self.vocab_size = max(self._whole.get_vocab(with_added_tokens=True).values()) + 1
        self.bos_id = self._role_id("bos")
        eos_id = self._role_id("eos")
        if eos_id is None:
            raise TokenizerError(
                f"{source.folder}: no file names the end-of-text token; add 'eos_token' to tokenizer_config.json"
            )
        self.eos_id = eos_id
        pad_id = self._role_id("pad")
        self.pad_id = eos_id if pad_id is None else pad_id
        self.adds_bos = self.bos_id is not None and self._adds_bos()
        self.digest = source.digest()

    def encode(self, text: str, continues: bool = False) -> list[int]:
        """Returns the ids of `text`; see `Tokenizer.encode`."""
        return self._tokenizer(continues).encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str], continues: bool = False) -> list[list[int]]:
        """Returns the ids of each text; see `Tokenizer.encode_batch`."""
        tokenizer = self._tokenizer(continues)

        def encode(texts: Sequence[str]) -> list[list[int]]:
            # The fast form leaves out character offsets, which nothing here needs.
            encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in encodings]

        return encode_with_shared_heads(texts, encode) if self._can_cut else encode(texts)

    def special_id(self, token: str) -> int:
        """Returns the id of a control token; see `Tokenizer.special_id`."""
        if token not in self._special:
            known = ", ".join(sorted(self._special)[:20]) or "none"
            raise TokenizerError(f"{self._source.folder}: {token!r} is no control token here; it has: {known}")
        return self._special[token]

    def decode(self, ids: Sequence[int], continues: bool = False) -> str:
        """Returns the text of `ids`; see `Tokenizer.decode`."""
        return self._tokenizer(continues).decode([int(index) for index in ids], skip_special_tokens=True)

    def save(self, folder: Path) -> None:
        """Writes the original files; see `Tokenizer.save`."""
        self._source.save(folder)

    def __reduce__(self) -> tuple[type, tuple[TokenizerFiles]]:
        # A pickled tokenizers.Tokenizer forgets that control strings are to be plain text.
        return HuggingFaceTokenizer, (self._source,)

    def _tokenizer(self, continues: bool) -> "tokenizers.Tokenizer":
        return self._continuing if continues else self._whole

    def _role_id(self, role: str) -> int | None:
        token = self._source.token(role)
        if token is None:
            return self._source.model_id(role)
        index = self._whole.token_to_id(token)
        if index is None:
            raise TokenizerError(
                f"{self._source.folder}: {role}_token = {token!r} is not in tokenizer.json; correct the setting"
            )
        return index

    def _adds_bos(self) -> bool:
        explicit = self._source.adds_bos()
        if explicit is not None:
            return explicit
        # Without a setting, tokenizer.json's own post-processor decides: what does it make of an empty text?
        return self._whole.encode("", add_special_tokens=True).ids[:1] == [self.bos_id]


class SentencePieceTokenizer:
    """A SentencePiece tokenizer.model. See `Tokenizer` for its methods."""

    def __init__(self, source: TokenizerFiles) -> None:
        from sentencepiece import sentencepiece_model_pb2

        self._source = source
        proto = source.contents["tokenizer.model"]
        self._whole = _load_pieces(proto, source.folder)
        continuing = sentencepiece_model_pb2.ModelProto.FromString(proto)  # type: ignore[attr-defined]
        continuing.normalizer_spec.add_dummy_prefix = False
        self._continuing = _load_pieces(continuing.SerializeToString(), source.folder)
        self.vocab_size = self._whole.vocab_size()
        bos_id, eos_id, pad_id = self._whole.bos_id(), self._whole.eos_id(), self._whole.pad_id()
        if eos_id < 0:
            raise TokenizerError(f"{source.folder}: tokenizer.model defines no end-of-text piece; jaxwiz needs one")
        self.controls = tuple(
            ControlToken(self._whole.id_to_piece(index), index)
            for index in range(self.vocab_size)
            if self._whole.is_control(index)
        )
        roles = {"bos_token": bos_id, "eos_token": eos_id, "unk_token": self._whole.unk_id(), "pad_token": pad_id}
        self.roles = {name: self._whole.id_to_piece(index) for name, index in roles.items() if index >= 0}
        self.chat_template = source.chat_template()
        self.bos_id = bos_id if bos_id >= 0 else None
        self.eos_id = eos_id
        self.pad_id = pad_id if pad_id >= 0 else eos_id
        # Llama's convention, where no setting says otherwise: a vocabulary with BOS begins every text with it.
        explicit = source.adds_bos()
        self.adds_bos = self.bos_id is not None and (True if explicit is None else explicit)
        self.digest = source.digest()

    def encode(self, text: str, continues: bool = False) -> list[int]:
        """Returns the ids of `text`; see `Tokenizer.encode`."""
        return self._pieces(continues).encode(text)

    def encode_batch(self, texts: Sequence[str], continues: bool = False) -> list[list[int]]:
        """Returns the ids of each text; see `Tokenizer.encode_batch`."""
        return self._pieces(continues).encode(list(texts))

    def special_id(self, token: str) -> int:
        """Returns the id of a control token; see `Tokenizer.special_id`."""
        index = self._whole.piece_to_id(token)
        if not self._whole.is_control(index):
            raise TokenizerError(
                f"{self._source.folder}: {token!r} is no control piece of tokenizer.model; use another template"
            )
        return index

    def decode(self, ids: Sequence[int], continues: bool = False) -> str:
        """Returns the text of `ids`; see `Tokenizer.decode`."""
        return self._pieces(continues).decode([int(index) for index in ids if index < self.vocab_size])

    def save(self, folder: Path) -> None:
        """Writes the original files; see `Tokenizer.save`."""
        self._source.save(folder)

    def __reduce__(self) -> tuple[type, tuple[TokenizerFiles]]:
        return SentencePieceTokenizer, (self._source,)

    def _pieces(self, continues: bool) -> "sentencepiece.SentencePieceProcessor":
        return self._continuing if continues else self._whole


def _call_special(spec: dict[str, Any], names: set[str]) -> None:
    """Marks those added tokens of a tokenizer.json as special that the settings call so, as transformers does."""
    for token in spec.get("added_tokens") or ():
        token["special"] = bool(token.get("special")) or token.get("content") in names


def _build(spec: dict[str, Any], folder: Path) -> "tokenizers.Tokenizer":
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec, ensure_ascii=False))
    except Exception as error:  # the package raises no narrower type
        raise TokenizerError(f"{folder / 'tokenizer.json'}: not a tokenizer ({error}); fetch the file again") from None
    tokenizer.no_truncation()  # a tokenizer.json may carry both, and both would change texts silently
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # control strings in text become plain characters
    return tokenizer


def _load_pieces(proto: bytes, folder: Path) -> "sentencepiece.SentencePieceProcessor":
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=proto)
    except (RuntimeError, ValueError) as error:
        raise TokenizerError(
            f"{folder}: tokenizer.model is not a SentencePiece model ({error}); fetch it again"
        ) from None


def _without_leading_space(spec: dict[str, Any]) -> dict[str, Any]:
    """Returns a tokenizer.json's content with no step that adds a space before a text or strips it again."""
    unspaced = dict(spec)
    for place in ("normalizer", "pre_tokenizer", "decoder"):
        if place in spec:
            unspaced[place] = _unspaced(place, spec[place])
    return unspaced


def _unspaced(place: str, step: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns one processing step without its handling of the leading space, or None if that is all it does."""
    if step is None:
        return None
    kind = step.get("type")
    if kind == "Sequence":
        members = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}[place]
        kept = [inner for inner in (_unspaced(place, member) for member in step[members]) if inner is not None]
        return {**step, members: kept}
    if kind == "Prepend" or (place == "decoder" and kind == "Strip" and step.get("content") == " "):
        return None
    if kind == "Metaspace":
        return {**step, "prepend_scheme": "never"}
    if place == "pre_tokenizer" and kind == "ByteLevel":
        return {**step, "add_prefix_space": False}
    return step
