"""The configuration of the train stage. Imports no JAX, so that `jaxwiz show` and `--help` stay quick."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.sharding.mesh import MeshConfig

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]


MomentDtype = Literal["float32", "bfloat16"]
Decay = Annotated[float, Field(ge=0, lt=1)]


@section
class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101). The defaults are WizardCoder's.

    Attributes:
      kind: "adamw".
      beta1: decay of the mean of gradients.
      beta2: decay of the mean of squared gradients.
      epsilon: added to the root of the second moment.
      moment_dtype: of the mean of gradients; bfloat16 saves a sixth of what training needs without activations.
    """

    kind: Literal["adamw"] = "adamw"
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    moment_dtype: MomentDtype = "float32"


@section
class Adafactor:
    """Adafactor (arXiv 1804.04235): squared gradients are kept as one row and one column a matrix, almost no memory.

    Attributes:
      kind: "adafactor".
      decay_exponent: the mean of squared gradients decays by 1 - step ** -decay_exponent.
      max_update_rms: updates of a parameter are scaled down to this root mean square; none: they are not.
      relative: scale updates by the parameter's own root mean square; the learning rate is then a part of it.
      momentum: decay of the mean of updates, which takes as much memory as the parameters; none: there is no mean.
    """

    kind: Literal["adafactor"] = "adafactor"
    decay_exponent: Annotated[float, Field(gt=0, le=1)] = 0.8
    max_update_rms: Annotated[float, Field(gt=0)] | None = 1.0
    relative: bool = True
    momentum: Decay | None = None


@section
class Muon:
    """Muon: the momentum of each matrix of the layers, orthogonalised; embedding, head, norms, biases take AdamW.

    Updates are scaled to the size of AdamW's (arXiv 2502.16982), so its learning rates and weight decay serve.

    Attributes:
      kind: "muon".
      momentum: decay of the mean of gradients, with Nesterov's look ahead.
      newton_schulz_steps: iterations of the orthogonalisation.
      adamw: for the parameters that are no matrices of layers; its `moment_dtype` is that of both.
    """

    kind: Literal["muon"] = "muon"
    momentum: Decay = 0.95
    newton_schulz_steps: PositiveInt = 5
    adamw: AdamW = AdamW()


Algorithm = Annotated[AdamW | Adafactor | Muon, Field(discriminator="kind")]


@section
class OptimizerConfig:
    """The optimizer, its learning-rate schedule, decay and clipping. The defaults are WizardCoder's.

    Attributes:
      algorithm: what makes a direction of the gradient, by `kind`: "adamw", "adafactor" or "muon".
      learning_rate: the peak, reached at the end of the warm-up.
      schedule: how the rate goes on after the warm-up; "cosine" and "linear" fall to `final_ratio` at the last step.
      warmup_steps: steps of linear warm-up; the first step already has a rate above zero.
      final_ratio: the rate after the last step, as a part of the peak ("cosine" and "linear" only).
      weight_decay: decoupled decay per step, times the learning rate; norm scales and biases are exempt.
      max_grad_norm: gradients are scaled down to this global norm; none: not clipped.
    """

    algorithm: Algorithm = AdamW()
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: NonNegativeInt = 0
    final_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0


@section
class LossConfig:
    """What is minimised beside the cross entropy of targets, which is always what `loss` reports.

    Attributes:
      z_loss: weight of the squared logarithm of the softmax's normaliser, which keeps logits from drifting; 1e-4 is
        usual (arXiv 2204.02311, section 5).
      label_smoothing: the part of each target's probability that is spread evenly over the vocabulary.
    """

    z_loss: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


@section
class BatchConfig:
    """How many packed rows one optimizer step sees, and in how many parts.

    Attributes:
      rows: packed rows of the whole step, over all devices and processes.
      micro_batches: equal parts computed one after another to save memory; the result equals one big batch.
    """

    rows: PositiveInt = 8
    micro_batches: PositiveInt = 1

    def __post_init__(self) -> None:
        if self.rows % self.micro_batches:
            raise ValueError(
                f"rows = {self.rows} must be a multiple of micro_batches = {self.micro_batches}; change one of them"
            )


@section
class ComputeConfig:
    """Numerics and memory of one step. Parameters, moments and the loss are float32 whatever is chosen here.

    Attributes:
      dtype: of matrix products and activations.
      attention: the attention kernel; "auto" takes the best one that the devices and the model's shape allow.
      remat: what each layer keeps for the backward pass, from everything ("none") to nothing ("full"); "offload" keeps
        it in the host's memory. See `model/remat.py`.
      scan_layers: false unrolls the layers, so that a debugger or profiler tells them apart; compiles far slower.
      loss_chunk_positions: positions of every row whose logits exist at the same time.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "reference", "xla", "splash", "cudnn", "pallas"] = "auto"
    remat: Literal["none", "full", "dots", "save_feed_forward", "save_attention", "offload"] = "none"
    scan_layers: bool = True
    loss_chunk_positions: PositiveInt = 128


@section
class FaultsConfig:
    """What a run bears, and when it calls a step a fault; `docs/faults.md` tells what happens then.

    Attributes:
      max_bad_steps: steps in a row whose loss or gradients are not finite that are left out; one more ends the run.
      spike_window: finite steps before a step that its loss is compared with; 0: not compared.
      spike_z: standard deviations above their mean from which a loss is flagged as a spike.
      step_limit_s: seconds after which a step hangs, and the run is ended; "auto": 20 times the median step, at least
        120; none: no limit. Compiling, held-out losses, benchmarks and saves are not timed.
      on_corrupt: whether a row that cannot be read, or holds unknown tokens, ends the run or is replaced by an
        empty one, and counted.
    """

    max_bad_steps: NonNegativeInt = 3
    spike_window: NonNegativeInt = 50
    spike_z: Annotated[float, Field(gt=0)] = 6.0
    step_limit_s: Annotated[float, Field(gt=0)] | Literal["auto"] | None = "auto"
    on_corrupt: Literal["stop", "skip"] = "stop"


@section
class IntervalsConfig:
    """How often a run writes metrics, measures and saves, in optimizer steps, and what it bears meanwhile.

    Attributes:
      faults: bad steps, bad rows and steps without end.
      log_steps: between points of the training curves in TensorBoard; metrics.jsonl has every step.
      eval_steps: between held-out losses; 0: only before the first and after the last step.
      checkpoint_steps: between saves of the full state; each costs three times what is trained on disk.
      keep_checkpoints: how many of the newest saved states stay; those that the next two fields keep stay as well.
      keep_hours: states younger than this stay; none: age keeps no state.
      keep_best: how many states with the lowest held-out loss stay; counts saves at steps that `eval_steps` measures.
      checkpoint_folder: where states are saved, such as gs://bucket/run, by one run only; none: `<out>/state`.
    """

    faults: FaultsConfig = FaultsConfig()
    log_steps: PositiveInt = 1
    eval_steps: NonNegativeInt = 0
    checkpoint_steps: PositiveInt = 50
    keep_checkpoints: PositiveInt = 1
    keep_hours: Annotated[float, Field(gt=0)] | None = None
    keep_best: NonNegativeInt = 0
    checkpoint_folder: str | None = None

    def __post_init__(self) -> None:
        if self.keep_best and (self.eval_steps == 0 or self.checkpoint_steps % self.eval_steps):
            raise ValueError(
                f"keep_best = {self.keep_best}: only a state with a held-out loss of its own can be the best; set "
                f"checkpoint_steps = {self.checkpoint_steps} to a multiple of eval_steps = {self.eval_steps}, and that "
                "above 0"
            )


@section
class TrainBenchmarkConfig:
    """Pass@k during training: now and then the sample and the evaluate stage run with the weights as they are.

    It is measured before the first step, every `every_steps` and after the last one. Each point has its own folder,
    `<out>/benchmark/step-<number>`, with what both stages write.

    Attributes:
      every_steps: optimizer steps between points.
      sample: the sample stage's config, but for `out` and `checkpoint`.
      evaluate: the evaluate stage's config, but for `out`, `samples` and `systems`; its tasks are those of `sample`.
      keep_weights: leave each point's checkpoint where it is; false deletes it once it is scored.
    """

    every_steps: PositiveInt
    sample: dict[str, Any] = dataclasses.field(default_factory=dict)
    evaluate: dict[str, Any] = dataclasses.field(default_factory=dict)
    keep_weights: bool = False


@section
class MixedDataset:
    """A further dataset that is mixed with `dataset`.

    Attributes:
      path: `out` folder of a data stage, with the same tokenizer, template and length of rows.
      weight: how many of its rows are seen for each row of `dataset`; 0.25: one of five rows is from here.
    """

    path: Path
    weight: Annotated[float, Field(gt=0)]


@section
class TrainConfig:
    """The train stage: fine-tune a checkpoint on packed shards.

    Attributes:
      out: folder of results and working state.
      dataset: `out` folder of a data stage: `dataset/` and `manifest.json`.
      mix: further datasets, by weight relative to `dataset`; each repeats in its own epochs.
      checkpoint: the weights to start from, with their tokenizer.
      optimizer: algorithm and schedule.
      loss: what is minimised beside the cross entropy.
      mesh: how devices are laid out.
      batch: rows and micro-batches of a step.
      compute: numerics and memory.
      lora: adapters to train instead of the model's own parameters; none: all parameters are trained.
      steps: optimizer steps in all; give either this or `epochs`.
      epochs: passes over the train split; rounded to whole steps, at least one.
      seed: decides the order of rows, and of adapters the initial values and the dropout.
      intervals: how often it writes, measures and saves.
      benchmark: pass@k during training; none: not measured.
    """

    out: Path
    dataset: Path
    mix: tuple[MixedDataset, ...] = ()
    checkpoint: Path
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    mesh: MeshConfig = MeshConfig()
    batch: BatchConfig = BatchConfig()
    compute: ComputeConfig = ComputeConfig()
    lora: LoraConfig | None = None
    steps: PositiveInt | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    seed: NonNegativeInt = 0
    intervals: IntervalsConfig = IntervalsConfig()
    benchmark: TrainBenchmarkConfig | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"steps = {self.steps} and epochs = {self.epochs}: give exactly one of them")
