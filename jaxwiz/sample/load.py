"""From a checkpoint folder, and adapters beside it, to an engine."""

from pathlib import Path

import jax.numpy as jnp
from jax.sharding import Mesh

from jaxwiz.checkpoint.adapter import load_adapter
from jaxwiz.checkpoint.weights import load_weights, read_header, tokenizer_folder
from jaxwiz.model.lora import Adapters
from jaxwiz.sample.engine import Engine
from jaxwiz.sample.prompts import Prompter
from jaxwiz.text.tokenizer import load_tokenizer


def load_engine(
    checkpoint: Path,
    template: str,
    slots: int,
    weights_dtype: str = "float32",
    cache_dtype: str = "float32",
    adapter: Path | None = None,
    mesh: Mesh | None = None,
    cache_tokens: int | None = None,
) -> Engine:
    """Returns an engine over a checkpoint's weights and tokenizer.

    Args:
      checkpoint: a checkpoint folder.
      template: the instruction template; names the tokens that end an answer beside EOS.
      slots: requests under way at once.
      weights_dtype: "float32", "bfloat16" or "int8".
      cache_dtype: likewise.
      adapter: a folder of LoRA adapters, applied without merging; None: none.
      mesh: devices to split over; None: the first one.
      cache_tokens: most tokens that the cache grows to; None: as many as the slots can come to need.

    Raises:
      UserError: no checkpoint, no usable tokenizer, no such template, or adapters that do not fit.
    """
    tokenizer = load_tokenizer(tokenizer_folder(checkpoint))
    header = read_header(checkpoint)
    stored = None if adapter is None else load_adapter(adapter, header.config)
    loaded = jnp.float32 if weights_dtype == "int8" else jnp.dtype(weights_dtype)
    return Engine(
        load_weights(checkpoint, dtype=loaded),
        header.config,
        tokenizer,
        slots=slots,
        end_ids=Prompter(tokenizer, template).end_ids,
        weights_dtype=weights_dtype,
        cache_dtype=cache_dtype,
        adapters=None if stored is None else Adapters(stored.params, stored.config),
        vocab_size=header.unpadded_vocab_size,
        cache_tokens=cache_tokens,
        mesh=mesh,
    )
