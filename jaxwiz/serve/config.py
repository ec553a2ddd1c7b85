"""What `jaxwiz serve` and `jaxwiz chat` can be told."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.files import UserError
from jaxwiz.sample.config import NumberType, SamplingConfig
from jaxwiz.sharding.mesh import MeshConfig

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@section
class LimitsConfig:
    """What one request, and all together, may take; beyond it the answer is an error that says so.

    Attributes:
      body_kib: size of a request's body.
      max_tokens: most tokens of an answer; the context bounds it besides.
      choices: answers of one request: its prompts times `n`.
      queue: answers that wait for a slot; above it the server says 429 and when to come back.
      seconds: that a request may take, waiting included.
      drain_seconds: after SIGTERM, until what is under way is cut off.
    """

    body_kib: Annotated[int, Field(gt=0)] = 4096
    max_tokens: Annotated[int, Field(gt=0)] = 4096
    choices: Annotated[int, Field(gt=0)] = 128
    queue: Annotated[int, Field(ge=0)] = 256
    seconds: Annotated[float, Field(gt=0)] = 600.0
    drain_seconds: Annotated[float, Field(ge=0)] = 30.0


@section
class ServeConfig:
    """The server.

    Attributes:
      checkpoint: the checkpoint folder.
      adapter: a folder of LoRA adapters, applied without merging; null: none.
      name: what clients call the model; empty: the name of the checkpoint's folder, or of its parent where that is
        "model".
      template: how chats are put to the model: a built-in template, "tokenizer" for the tokenizer's own, or the path
        of a .jinja file.
      host: address to listen at. Any other than loopback needs a key, or `open`.
      port: 0 takes a free one and says which.
      api_key_env: environment variable that holds the key clients must send; empty: no key.
      api_key_file: file that holds it instead. Texts, not paths: a config names no secret's contents.
      open: let anybody in who reaches a host beyond loopback.
      slots: answers that are generated at once.
      dtype: of the weights; int8 has a scale for each output channel.
      cache_dtype: of keys and values; null: bfloat16 where weights are, else float32.
      cache_tokens: tokens whose keys and values are held at once; null: as many as all slots can come to need, at the
        model's longest context.
      mesh: devices that weights and cache are split over; null: the first device.
      limits: see there.
    """

    checkpoint: Path
    adapter: Path | None = None
    name: str = ""
    template: str = "tokenizer"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, lt=65536)] = 8000
    api_key_env: str = ""
    api_key_file: str = ""
    open: bool = False
    slots: Annotated[int, Field(gt=0, le=4096)] = 16
    dtype: NumberType = "float32"
    cache_dtype: NumberType | None = None
    cache_tokens: Annotated[int, Field(gt=0)] | None = 32768
    mesh: MeshConfig | None = None
    limits: LimitsConfig = LimitsConfig()

    def __post_init__(self) -> None:
        """Checks the rules that join fields."""
        if self.host not in LOOPBACK and not (self.api_key_env or self.api_key_file or self.open):
            raise UserError(
                f"host = {self.host!r}: others reach this address, and there is no key; set api_key_env or "
                "api_key_file, or say open=true if everybody may use it"
            )

    def model_name(self) -> str:
        """Returns what clients call the model."""
        folder = self.checkpoint.absolute()
        return self.name or (folder.parent.name if folder.name == "model" else folder.name)


@section
class ChatConfig:
    """The chat in the terminal.

    Attributes:
      checkpoint: the checkpoint folder.
      adapter: a folder of LoRA adapters, applied without merging; null: none.
      template: as in `ServeConfig`; "none" has the model go on from what is typed, as base models do.
      system: what the model is told before the first turn; empty: nothing.
      sampling: how tokens are drawn; each answer's seed is the config's plus the number of the turn.
      dtype: of the weights.
      cache_dtype: of keys and values; null: bfloat16 where weights are, else float32.
    """

    checkpoint: Path
    adapter: Path | None = None
    template: str = "tokenizer"
    system: str = ""
    sampling: SamplingConfig = SamplingConfig(temperature=0.2, top_p=0.95, max_new_tokens=1024)
    dtype: NumberType = "float32"
    cache_dtype: NumberType | None = None
