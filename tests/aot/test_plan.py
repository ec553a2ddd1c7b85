"""Real steps, compiled for TPUs that are not here: with the splash kernel, sharded, within a chip's memory.

Needs the compiler of Cloud TPUs, no TPU. It holds for what the compiler decides (does the kernel lower, does the step
fit, what does it send), not for speed or results. `benchmarks/plan.py` does the same for whole pods.

    make test-aot
"""

import importlib.util
import json
import shlex
from pathlib import Path

import pytest

from jaxwiz.cli import main
from jaxwiz.model.remat import POLICIES
from jaxwiz.plan.chips import GIB
from tests.documents.pages import PAGES, lines_to_type

pytestmark = [
    pytest.mark.aot,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed"),
]

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(ROOT / "configs/train/wizardcoder.yaml")
PLANS = [  # those that are whole; a name in capitals stands for a reader's own
    line.removeprefix(".venv-aot/bin/")
    for page in PAGES
    for line in lines_to_type(page)
    if "jaxwiz plan configs/" in line
]
SMALL = """
vocab_size: 32000
hidden_size: 1024
intermediate_size: 2048
num_layers: 8
num_heads: 8
num_kv_heads: 2
head_dim: 128
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def plan(tmp_path: Path, model: Path, topology: str, *more: str, overrides: tuple[str, ...] = ()) -> tuple[int, dict]:
    """The exit code and the JSON of `jaxwiz plan`."""
    out = tmp_path / "plan.json"
    arguments = ["plan", RECIPE, *overrides, "--topology", topology, "--model", str(model), "--json", "--out", str(out)]
    code = main([*arguments, *more])
    return code, json.loads(out.read_text())


@pytest.mark.parametrize("remat", POLICIES)
def test_a_small_model_compiles_under_every_policy(remat: str, small: Path, tmp_path: Path):
    overrides = (f"compute.remat={remat}", "batch.rows=16", "batch.micro_batches=2")
    code, found = plan(tmp_path, small, "v5e:2x4", overrides=overrides)
    made = found["plan"]
    print(
        f"{remat}: peak {made['peak_bytes'] / GIB:.2f} GiB, {made['program_flops'] / made['model_flops']:.2f} x FLOPs"
    )
    assert code == 0
    assert made["attention"] == "splash"
    # Fewer than the model's are possible only if products were not counted; more than 3/2 if too many were.
    assert 0.98 <= made["program_flops"] / made["model_flops"] <= 1.5
    # The least is what the sharding must send; a factor of 2 is how far the compiler has been seen to go beyond.
    moved = sum(made["ici_bytes"].values())
    assert 0.9 <= moved / sum(made["least_bytes"].values()) <= 2.5
    # Params and moments in float32, split over 8 chips.
    state = made["memory_bytes"]["weights"] + made["memory_bytes"]["optimizer"]
    assert state == pytest.approx(12 * made["parameters"] / 8, rel=0.01)


def test_two_slices_talk_over_the_network_once_a_step(small: Path, tmp_path: Path):
    overrides = ("mesh.slice=2", "batch.rows=32", "batch.micro_batches=1", "compute.remat=full")
    code, found = plan(tmp_path, small, "v5e:2x4", "--slices", "2", overrides=overrides)
    assert code == 0
    assert sum(found["plan"]["dcn_bytes"].values()) > 0


def test_a_decode_step_is_bound_by_memory(small: Path, tmp_path: Path):
    overrides = ("mesh.data=2", "mesh.fsdp=1", "mesh.tensor=2")
    code, found = plan(tmp_path, small, "v5e:2x2", "--decode", "--rows", "8", "--slots", "1024", overrides=overrides)
    made = found["plan"]
    assert code == 0
    assert made["step"] == "decode"
    # Keys and values of 8 layers and all 8 rows, their 2 heads split over `tensor`; every replica has all pages.
    assert made["memory_bytes"]["cache"] == 2 * 8 * 8 * 1024 * (2 // 2) * 128 * 2
    assert made["binds"] == "HBM"


def test_a_step_that_does_not_fit_is_told_what_would(tmp_path: Path):
    model = ROOT / "configs/model/codellama-python-7b.yaml"
    overrides = ("batch.rows=16", "batch.micro_batches=1", "mesh.fsdp=4", "mesh.data=4", "compute.remat=full")
    code, found = plan(tmp_path, model, "v5e:4x4", overrides=overrides)
    assert code == 1
    assert found["best"] == "mesh.data=1 mesh.fsdp=16"
    assert found["plan"]["missing"] > 0


@pytest.mark.parametrize("line", PLANS)
def test_a_plan_that_a_page_shows_runs_and_fits(line: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(line)[1:]) == 0
