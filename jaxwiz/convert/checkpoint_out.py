"""A checkpoint from a model's tensors, written block by block into the leaves that are stacked over layers."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxwiz.checkpoint.arrays import ArrayLayout, ArrayWriter
from jaxwiz.checkpoint.weights import Header, write_header
from jaxwiz.convert.flow import SINGLE_THREAD, Block, Flow, blocks_of, copy_turned, rows_per_block
from jaxwiz.convert.names import Rule, rules_for, tensor_names
from jaxwiz.convert.tensors import ModelFiles, leaf_dtype
from jaxwiz.files import atomic_folder, copy_files
from jaxwiz.model.config import ModelConfig

# How often a block is halved along each axis, as long as its chunks stay at least this large.
_HALVINGS = 3
_LEAST_CHUNK_BYTES = 4 << 20


def write_checkpoint(folder: Path, model: ModelFiles, flow: Flow = SINGLE_THREAD) -> dict[str, np.dtype]:
    """Writes a model as a checkpoint, each leaf in its source's dtype; the folder is whole or absent.

    Args:
      folder: where it goes; what stands there is replaced once the new one is complete.
      model: what to write.
      flow: how its weights are moved.

    Returns:
      the dtype of each tensor in its leaf.

    Raises:
      ConversionError: the weights cannot be read, or are not finite.
    """
    config, tensors = model.config, model.tensors
    names = {rule.param: tensor_names(rule, config) for rule in rules_for(config)}
    dtypes = {path: leaf_dtype(tensors, names[path]) for path in names}
    layouts = {rule.param: array_layout(rule, config, dtypes[rule.param]) for rule in rules_for(config)}
    with atomic_folder(folder) as partial, ThreadPoolExecutor(1, "digest") as pool:
        digest = pool.submit(model.digest)  # beside the reading below, which has the same bytes in the disk cache
        copy_files(model.tokenizer, partial / "tokenizer")
        writer = ArrayWriter(partial / "params", layouts)

        def move(block: Block, rows: np.ndarray) -> None:
            layout = layouts[block.rule.param]
            place = block.rule.rows_of_param(block.start, block.stop, config)
            turned = np.empty([part.stop - part.start for part in place], layout.dtype)
            copy_turned(block.rule.to_tensor(turned), rows.astype(layout.dtype, copy=False))
            start = tuple(part.start for part in place)
            if block.rule.stacked:
                start, turned = (block.layer, *start), turned[None]
            writer.write(block.rule.param, start, turned)

        flow.run("write checkpoint", tensors, blocks_of(tensors.shapes, config), move)
        header = Header(
            config=config,
            provenance={**model.provenance, "sha256": digest.result()},
            template=model.template,
            unpadded_vocab_size=model.unpadded_vocab_size,
            hf_config=model.hf_config,
            tensor_dtypes={
                name: tensors.dtypes[name].name
                for path in names
                for name in names[path]
                if tensors.dtypes[name] != dtypes[path]
            },
        )
        write_header(partial, header)
    return {name: dtypes[path] for path in names for name in names[path]}


def array_layout(rule: Rule, config: ModelConfig, dtype: np.dtype) -> ArrayLayout:
    """Returns how a leaf lies on disk: every block is made of whole chunks, and no chunk spans two layers.

    Matrices are cut along columns and rows in turn, so that devices which share out either read little more than their
    part.
    """
    merged, axes = rule.layout.split("->")
    place = rule.rows_of_param(0, rows_per_block(rule, config), config)
    chunk = {axis: part.stop for axis, part in zip(axes.split(), place, strict=True)}
    leading = [group.split()[0] for group in merged.split(",")]
    for axis in [*reversed(leading)] * _HALVINGS:
        if chunk[axis] % 2 == 0 and math.prod(chunk.values()) * dtype.itemsize >= 2 * _LEAST_CHUNK_BYTES:
            chunk[axis] //= 2
    return ArrayLayout(rule.param_shape(config), dtype, (*([1] if rule.stacked else []), *chunk.values()))
