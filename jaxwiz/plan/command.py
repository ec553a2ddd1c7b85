"""`jaxwiz plan RECIPE.yaml --topology v5e:16x16`: reads what is asked for, plans, and prints a report or JSON.

The recipe is a config of the train stage; neither its checkpoint nor its dataset need exist. The model's shape comes
from `--model` (a YAML file such as those of configs/model, a Hugging Face config.json, or a checkpoint), else from the
recipe's checkpoint; the length of rows from `--length`, else from its dataset, else it is WizardCoder's 2,048.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from jaxwiz.checkpoint.weights import load_model_config
from jaxwiz.config import parse_config, read_config_file
from jaxwiz.files import UserError, write_text
from jaxwiz.model.config import ModelConfig, model_config_from_hf, parse_model_config
from jaxwiz.plan.build import Plan, make_plan, missing_text
from jaxwiz.plan.chips import GIB, Topology
from jaxwiz.plan.compiler import require_libtpu
from jaxwiz.plan.report import attempts_text, plan_text
from jaxwiz.plan.request import DecodeShape, OutOfMemory, Request
from jaxwiz.plan.search import Attempt, advice, best_of, largest_batch, largest_of
from jaxwiz.sharding.rules import batch_shards
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.dataset import read_manifest

FITS, DOES_NOT_FIT = 0, 1
_LENGTH = 2048


def run_plan(options: argparse.Namespace) -> int:
    """Returns the exit code of `jaxwiz plan`: 0 where the step fits, 1 where it does not.

    Args:
      options: config, overrides, topology, slices, model, length, decode, rows, slots, search, json; see `cli.py`.

    Raises:
      UserError: a fault in what was asked for, or libtpu is not installed.
    """
    request = read_request(options)
    require_libtpu()
    if options.search:
        attempts = largest_batch(request)
        best = largest_of(attempts)
        if best is None:
            attempts += advice(request)
            best = best_of(attempts)
        return _tell(options, best.found if best else attempts[-1].found, attempts, best)
    found = make_plan(request)
    attempts = [] if (isinstance(found, Plan) and found.fits) or request.decode else advice(request)
    return _tell(options, found, attempts, best_of(attempts))


def read_request(options: argparse.Namespace) -> Request:
    """Returns what the command line asks for.

    Raises:
      UserError: with what is wrong and the remedy.
    """
    topology = Topology.parse(options.topology, options.slices)
    train = _recipe(options.config, options.overrides)
    model = read_model(options.model or train.checkpoint, asked=options.model is not None)
    decode = DecodeShape(options.rows, options.slots) if options.decode else None
    request = Request(model, train, options.length or _row_length(train), topology, decode)
    sizes = train.mesh.sizes(topology.chips)
    shards, rows, parts = batch_shards(sizes), train.batch.rows, train.batch.micro_batches
    if decode is None and rows % (parts * shards):
        raise UserError(
            f"batch.rows = {rows}: must be a multiple of {parts} micro-batches x {shards} slice, data, fsdp devices; "
            "change one of them"
        )
    if decode is not None and decode.rows % shards:
        raise UserError(
            f"--rows {decode.rows}: must be a multiple of the {shards} slice, data and fsdp devices; change one"
        )
    return request


def read_model(path: Path, *, asked: bool = True) -> ModelConfig:
    """Returns a model's shape from a YAML file, a Hugging Face config.json or a checkpoint.

    Args:
      path: which.
      asked: false: it is the recipe's checkpoint, which nobody named on the command line.

    Raises:
      UserError: it is none of them.
    """
    if path.suffix in (".yaml", ".yml"):
        return parse_model_config(read_config_file(path), str(path))
    if path.suffix == ".json":
        try:
            return model_config_from_hf(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise (
                error if isinstance(error, UserError) else UserError(f"--model {path}: cannot be read: {error}")
            ) from error
    if not path.exists() and not asked:
        raise UserError(
            f"checkpoint {path}: does not exist; say which model it will be: --model followed by a shape such as "
            "configs/model/codellama-python-7b.yaml, a config.json, or another checkpoint"
        )
    return load_model_config(path)


def _recipe(path: Path, overrides: list[str]) -> TrainConfig:
    data = read_config_file(path, overrides)
    stage = data.pop("stage", "train")
    if stage != "train":
        raise UserError(f"{path}: stage = {stage!r}: a plan needs a config of the train stage")
    return parse_config(data, TrainConfig, str(path))


def _row_length(train: TrainConfig) -> int:
    return read_manifest(train.dataset).sequence_length if train.dataset.exists() else _LENGTH


def _tell(options: argparse.Namespace, found: Plan | OutOfMemory, attempts: list[Attempt], best: Attempt | None) -> int:
    """Prints what was found and returns the exit code."""
    fits = isinstance(found, Plan) and found.fits
    data = {
        "plan": found.to_json() if isinstance(found, Plan) else dataclasses.asdict(found),
        "attempts": [_attempt_json(attempt) for attempt in attempts],
        "best": best.change if best else None,
    }
    as_json = json.dumps(data, indent=1) + "\n"
    if options.out is not None:
        write_text(options.out, as_json)
    if isinstance(found, Plan):
        text = plan_text(found)
    else:
        text = f"DOES NOT FIT: {missing_text(found.missing)}\n{found.message}\n"
    print(as_json if options.json else text + ("\n" + attempts_text(attempts, best) if attempts else ""), end="")
    return FITS if fits else DOES_NOT_FIT


def _attempt_json(attempt: Attempt) -> dict[str, object]:
    found = attempt.found
    result: dict[str, object] = {"change": attempt.change, "fits": attempt.fits}
    if isinstance(found, Plan):
        return result | {"peak_gib": found.compiled.peak / GIB, "mfu_bound": found.roofline.mfu_bound}
    return result | {"missing_gib": found.missing / GIB}
