"""Which text generator to use: a union of sections told apart by `kind`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.config import section

TokenLimitField = Literal["max_tokens", "max_completion_tokens"]


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
        Empty, and no `api_key_file`: the endpoint wants no key.
      api_key_file: a file that holds the key and nothing else; it goes before `api_key_env`. A text, not a path of the
        config's inputs, so that no digest of a key is ever written.
      max_in_flight: most requests under way at once.
      requests_per_minute: most requests sent in a minute; null: no limit of ours.
      tokens_per_minute: most tokens in a minute, prompts and answers; null: no limit of ours.
      timeout_s: seconds to wait for one answer before it is tried again.
      max_retries: how often one request is tried again after a fault that may pass.
      token_limit_field: the request's name for `max_new_tokens`; newer OpenAI models want "max_completion_tokens".
      transport: "openai" is the official client; "direct" sends the same bytes over sockets of our own, for more calls
        a second than the client's processor time allows (some hundreds); it knows no proxies.
    """

    kind: Literal["openai"] = "openai"
    base_url: Annotated[str, Field(pattern=r"^https?://")]
    model: Annotated[str, Field(min_length=1)]
    api_key_env: str = "OPENAI_API_KEY"
    api_key_file: str = ""
    max_in_flight: Annotated[int, Field(gt=0)] = 32
    requests_per_minute: Annotated[int, Field(gt=0)] | None = None
    tokens_per_minute: Annotated[int, Field(gt=0)] | None = None
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    max_retries: Annotated[int, Field(ge=0)] = 8
    token_limit_field: TokenLimitField = "max_tokens"
    transport: Literal["openai", "direct"] = "openai"


@section
class OpenAIBatchBackend:
    """OpenAI's Batch API: files of requests, answered within a day at half the price.

    Attributes:
      base_url: as for `openai`.
      model: as for `openai`.
      api_key_env: as for `openai`.
      api_key_file: as for `openai`.
      token_limit_field: as for `openai`.
      requests_per_file: most requests in a file; OpenAI takes 50,000.
      megabytes_per_file: most megabytes of a file; OpenAI takes 200.
      max_open_files: most batches under way at once; a budget takes effect between them.
      poll_s: seconds between two looks at a batch's state.
      timeout_s: seconds to wait for an answer about a batch, or for a file to be sent or fetched.
      max_retries: how often a request is put into another batch after a fault that may pass, an expired batch included;
        and how often one HTTP request is tried again.
    """

    kind: Literal["openai_batch"] = "openai_batch"
    base_url: Annotated[str, Field(pattern=r"^https?://")]
    model: Annotated[str, Field(min_length=1)]
    api_key_env: str = "OPENAI_API_KEY"
    api_key_file: str = ""
    token_limit_field: TokenLimitField = "max_tokens"
    requests_per_file: Annotated[int, Field(gt=0, le=50_000)] = 50_000
    megabytes_per_file: Annotated[int, Field(gt=0, le=200)] = 200
    max_open_files: Annotated[int, Field(gt=0)] = 16
    poll_s: Annotated[float, Field(gt=0)] = 60.0
    timeout_s: Annotated[float, Field(gt=0)] = 600.0
    max_retries: Annotated[int, Field(ge=0)] = 8


@section
class ReplayBackend:
    """Recorded answers: the journal of an earlier run with the same requests.

    Attributes:
      path: the recording, a `journal.jsonl`.
    """

    kind: Literal["replay"] = "replay"
    path: Path


BackendConfig = Annotated[JaxBackend | OpenAIBackend | OpenAIBatchBackend | ReplayBackend, Field(discriminator="kind")]
