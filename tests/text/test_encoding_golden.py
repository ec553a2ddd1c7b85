"""Ids equal those of transformers on hard texts, from a record; tests/parity compares live, on 2,000 real rows."""

import json
from pathlib import Path

import pytest
from encoding_cases import GOLDEN_TEXTS
from smollm2_cases import fetch_smollm2

from jaxwiz.convert.gguf_in import read_gguf
from jaxwiz.convert.names import ConversionError
from jaxwiz.text.tokenizer import load_tokenizer

RECORD = json.loads((Path(__file__).parents[1] / "golden" / "encoding.json").read_text())


def test_llama_3_style_ids_equal_those_of_transformers(tmp_path: Path):
    for name, content in RECORD["llama3_files"].items():
        (tmp_path / name).write_text(json.dumps(content))
    assert load_tokenizer(tmp_path).encode_batch(GOLDEN_TEXTS) == RECORD["ids"]["llama3"]


def test_llama_2_ids_equal_those_of_transformers(llama_2):
    assert llama_2.encode_batch(GOLDEN_TEXTS) == RECORD["ids"]["llama2"]


def test_smollm2_ids_equal_those_of_transformers(tmp_path: Path):
    try:
        model = read_gguf(fetch_smollm2(), tmp_path, "test")
    except ConversionError as error:
        pytest.skip(f"the default model can't be had here: {error}")
    assert load_tokenizer(model.tokenizer).encode_batch(GOLDEN_TEXTS) == RECORD["ids"]["smollm2"]
