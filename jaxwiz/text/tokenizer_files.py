"""A tokenizer's files, and what they say beside the vocabulary: control tokens, roles, the chat template.

Settings are read from wherever Hugging Face folders keep them: tokenizer_config.json, special_tokens_map.json, and for
ids only the model's own config.json and generation_config.json. The files are kept byte for byte.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from jaxwiz.files import UserError, atomic_file, sha256_of_bytes

# Kept by `save` where they exist; added_tokens.json, vocab.json and merges.txt only help other programs.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
# The model's own files, asked for ids only where the tokenizer's do not name the end-of-text token.
MODEL_FILES = ("generation_config.json", "config.json")
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class TokenizerError(UserError):
    """A tokenizer that cannot be used; the message names the file, the rule and the remedy."""


@dataclasses.dataclass(frozen=True, slots=True)
class ControlToken:
    """A token that texts never become.

    Attributes:
      text: its exact string.
      id: its id.
      strips_left: whether a chat template's white space before it is no part of the sequence.
      strips_right: the same for what follows it.
    """

    text: str
    id: int
    strips_left: bool = False
    strips_right: bool = False


class TokenizerFiles:
    """A tokenizer's files in memory, and what they say about its control tokens."""

    def __init__(self, folder: Path, contents: dict[str, bytes]) -> None:
        self.folder = folder
        self.contents = contents
        self._settings = {
            name: self.parse(name)
            for name in ("tokenizer_config.json", "special_tokens_map.json", *MODEL_FILES)
            if name in contents
        }
        if self.token("eos") is not None:
            for name in MODEL_FILES:  # not needed, so not part of this tokenizer
                self.contents.pop(name, None)

    def parse(self, name: str) -> dict[str, Any]:
        """Returns one file as a JSON object."""
        try:
            data = json.loads(self.contents[name])
        except ValueError as error:
            raise TokenizerError(f"{self.folder / name}: not JSON ({error}); fetch the file again") from None
        if not isinstance(data, dict):
            raise TokenizerError(f"{self.folder / name}: must be a JSON object; fetch the file again")
        return data

    def token(self, role: str) -> str | None:
        """Returns the string of the token of a role, such as "bos", or None if the tokenizer's files do not name it."""
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            value = _content(self._settings.get(name, {}).get(f"{role}_token"))
            if value is not None:
                return value
        return None

    def roles(self) -> dict[str, str]:
        """Returns the tokens by the names that chat templates know them by, such as "bos_token"."""
        found = {f"{role}_token": self.token(role) for role in _ROLES}
        return {name: token for name, token in found.items() if token is not None}

    def control_names(self) -> set[str]:
        """Returns the strings that the settings call special tokens, whether or not tokenizer.json agrees."""
        names = set(self.roles().values())
        for settings in self._settings.values():
            more = settings.get("additional_special_tokens")
            names |= {_content(token) or "" for token in more} if isinstance(more, list) else set()
        return names - {""}

    def chat_template(self) -> str | None:
        """Returns the Jinja text of the chat template, of several the one named "default"; None if there is none."""
        if "chat_template.jinja" in self.contents:
            return self.contents["chat_template.jinja"].decode("utf-8", "replace")
        value = self._settings.get("tokenizer_config.json", {}).get("chat_template")
        if isinstance(value, list):
            named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
            value = named.get("default")
        return value if isinstance(value, str) else None

    def model_id(self, role: str) -> int | None:
        """Returns the id that the model's own files give to a role; of several the first."""
        for name in MODEL_FILES:
            value = self._settings.get(name, {}).get(f"{role}_token_id")
            if isinstance(value, list):
                value = value[0] if value else None
            if isinstance(value, int):
                return value
        return None

    def adds_bos(self) -> bool | None:
        """Returns the explicit setting `add_bos_token`, or None if there is none."""
        value = self._settings.get("tokenizer_config.json", {}).get("add_bos_token")
        return value if isinstance(value, bool) else None

    def digest(self) -> str:
        """Returns one SHA-256 over names and contents."""
        digests = {name: sha256_of_bytes(data) for name, data in sorted(self.contents.items())}
        return sha256_of_bytes(json.dumps(digests).encode())

    def save(self, folder: Path) -> None:
        """Writes the files into `folder`."""
        for name, data in self.contents.items():
            with atomic_file(folder / name) as partial:
                partial.write_bytes(data)


def _content(token: Any) -> str | None:
    """Returns the string of a token as settings give it: plain, or an object with "content"."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
