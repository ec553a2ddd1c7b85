"""Which text generator to use: a union of sections told apart by `kind`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.config import section


@section
class JaxBackend:
    """The local model, in process.

    Attributes:
      checkpoint: a jaxwiz checkpoint folder.
      template: name of the prompt template that wraps each request.
      batch_size: rows generated at once; short batches are padded, so that shapes never change.
      max_prompt_tokens: longest prompt in tokens, template included; longer ones fail with "context_length".
    """

    kind: Literal["jax"] = "jax"
    checkpoint: Path
    template: str = "chatml"
    batch_size: Annotated[int, Field(gt=0)] = 8
    max_prompt_tokens: Annotated[int, Field(gt=0)] = 1024


@section
class OpenAIBackend:
    """Any endpoint that speaks OpenAI's chat completions.

    Attributes:
      base_url: where it is, up to and including the version, for instance "https://api.openai.com/v1".
      model: the model's name there.
      api_key_env: name of the environment variable that holds the key; the key itself never stands in a config.
        Empty: the endpoint wants no key.
      max_in_flight: most requests under way at once.
      timeout_s: seconds to wait for one answer before it is tried again.
      max_retries: how often one request is tried again after a fault that may pass.
      token_limit_field: the request's name for `max_new_tokens`; newer OpenAI models want "max_completion_tokens".
    """

    kind: Literal["openai"] = "openai"
    base_url: Annotated[str, Field(pattern=r"^https?://")]
    model: Annotated[str, Field(min_length=1)]
    api_key_env: str = "OPENAI_API_KEY"
    max_in_flight: Annotated[int, Field(gt=0)] = 32
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    max_retries: Annotated[int, Field(ge=0)] = 8
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"


@section
class ReplayBackend:
    """Recorded answers: the journal of an earlier run with the same requests.

    Attributes:
      path: the recording, a `journal.jsonl`.
    """

    kind: Literal["replay"] = "replay"
    path: Path


BackendConfig = Annotated[JaxBackend | OpenAIBackend | ReplayBackend, Field(discriminator="kind")]
