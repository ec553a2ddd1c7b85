"""An endpoint's API key: from an environment variable or a file, and in no text that anybody could read."""

import os
from pathlib import Path

from jaxwiz.llm.config import OpenAIBackend, OpenAIBatchBackend
from jaxwiz.llm.protocol import GenerationError

HIDDEN = "(key)"
_NO_KEY = "none"  # what is sent to an endpoint without keys; the official client wants some text


class ApiKey:
    """A key whose text comes out by `reveal` alone; printed, it is "(key)"."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Returns the key itself, for an Authorization header and nothing else."""
        return self._text

    def hidden_in(self, text: str) -> str:
        """Returns `text`, for instance a server's message, without the key."""
        return text if self._text == _NO_KEY else text.replace(self._text, HIDDEN)

    def __repr__(self) -> str:
        return HIDDEN

    def __reduce__(self) -> str:
        raise TypeError("an API key is not to be pickled; read it again from where it is kept")


def read_key(config: OpenAIBackend | OpenAIBatchBackend) -> ApiKey:
    """Returns the key of `api_key_file`, else of the environment variable `api_key_env`.

    Raises:
      GenerationError: there is none, or it can't be sent in a header; the message never shows it.
    """
    if config.api_key_file:
        field = f"generator.api_key_file = {config.api_key_file!r}"
        try:
            text = Path(config.api_key_file).expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise GenerationError(f"{field}: cannot read the key ({reason}); correct the path") from None
        remedy = "write the key, and nothing else, into it"
    elif config.api_key_env:
        field = f"generator.api_key_env = {config.api_key_env!r}"
        text = os.environ.get(config.api_key_env, "").strip()
        remedy = "export this environment variable, or set the field to '' for an endpoint without keys"
    else:
        return ApiKey(_NO_KEY)
    if not text:
        raise GenerationError(f"{field}: holds no key; {remedy}")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise GenerationError(f"{field}: a key is one word of ASCII characters; this is not; {remedy}")
    return ApiKey(text)
