"""The families of decoders and the modules that each is made of.

Beside its modules a family has a config and a table of Hugging Face's names (`convert/names.py`). What else there is of
parameters derives from the modules' declarations (`model/params.py`), and the rest is the same for all of them: the
pass over layers (`model/decoder.py`), loss, mesh, conversion, cache and sampling.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx

from jaxwiz.model.config import LlamaConfig, ModelConfig
from jaxwiz.model.gpt_bigcode import GPTBigCodeLayer, LayerNorm, PositionedEmbedding
from jaxwiz.model.gpt_bigcode_config import GPTBigCodeConfig
from jaxwiz.model.layers import DecoderLayer, Embedding, RMSNorm

ModuleClass = Callable[..., nnx.Module]  # called as (config, rngs)


class Family(NamedTuple):
    """What a decoder is made of.

    Attributes:
      embedding: declares the tables that tokens are looked up in.
      layer: a layer, called as (x, turn, attend, adapters, product).
      norm: the norm after the last layer, called as (x).
    """

    embedding: ModuleClass
    layer: ModuleClass
    norm: ModuleClass


_FAMILIES: dict[type[Any], Family] = {
    LlamaConfig: Family(Embedding, DecoderLayer, RMSNorm),
    GPTBigCodeConfig: Family(PositionedEmbedding, GPTBigCodeLayer, LayerNorm),
}


def family_of(config: ModelConfig) -> Family:
    """Returns the modules of a model of this config."""
    return _FAMILIES[type(config)]
