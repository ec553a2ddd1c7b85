"""What `jaxwiz plan` is asked for, its faults, and the report and JSON of a plan; nothing is compiled here."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxwiz.cli import main
from jaxwiz.config import ConfigError
from jaxwiz.files import UserError
from jaxwiz.plan import command, compiler
from jaxwiz.plan.build import Plan, plan_of
from jaxwiz.plan.command import read_model
from jaxwiz.plan.report import plan_text
from jaxwiz.plan.request import Compiled, OutOfMemory, Request
from jaxwiz.plan.search import Attempt
from tests.plan.test_hlo import LOOP

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "configs/model/codellama-python-7b.yaml"
RECIPE = ROOT / "configs/train/wizardcoder-7b-v5e-16.yaml"
ARGUMENTS = ["plan", str(RECIPE), "--topology", "v5e:4x4", "--model", str(MODEL)]


def compiled(request: Request, peak: int = 10 * 2**30) -> Compiled:
    places = [(0, x, y) for y in range(4) for x in range(4)]
    mesh = request.train.mesh.sizes(16)
    kinds = {"weights": 2**30, "optimizer": 2 * 2**30, "batch": 2**20}
    hlo = LOOP.replace("BOUND", "constant(8)")
    return Compiled(hlo, mesh, places, "splash", kinds, 4 * 2**30, peak, 1e12, 6_738_423_808, 90.0)


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Stands in for the compiler; the list gets what was asked."""
    asked: list[Request] = []

    def plan(request: Request) -> Plan:
        asked.append(request)
        return plan_of(request, compiled(request))

    monkeypatch.setattr(command, "make_plan", plan)
    monkeypatch.setattr(command, "require_libtpu", lambda: None)
    return asked


def test_a_plan_needs_neither_checkpoint_nor_dataset(planner: list[Request], capsys: pytest.CaptureFixture[str]):
    assert main(ARGUMENTS) == 0
    (request,) = planner
    assert (request.model.hidden_size, request.length, request.topology.chips) == (4096, 2048, 16)
    printed = capsys.readouterr().out
    for said in ("v5e:4x4, 16 chips, as fsdp 16", "6,738,423,808 parameters", "weights", "optimizer", "fits", "MFU"):
        assert said in printed


def test_json_has_every_figure(planner: list[Request], tmp_path: Path):
    out = tmp_path / "plan.json"
    assert main([*ARGUMENTS, "--json", "--out", str(out)]) == 0
    plan = json.loads(out.read_text())["plan"]
    assert plan["free_share"] == pytest.approx(1 - 10 / 15.75)
    assert plan["memory_bytes"]["activations and temporaries"] == 6 * 2**30
    assert plan["least_bytes"]["weights"] == pytest.approx(
        2 * 16 * (6_738_431_488 - 32_001 * 4096) * 2 * 15 / 16, rel=0.01
    )
    assert plan["chip"]["peak_flops"] == 197e12


def test_a_step_with_too_little_memory_to_spare_does_not_fit(planner: list[Request]):
    request = command.read_request(_options())
    tight = plan_of(request, compiled(request, peak=int(15.5 * 2**30)))
    assert not tight.fits
    assert "DOES NOT FIT" in plan_text(tight)


def _request() -> Request:
    return command.read_request(_options())


def _options():
    from jaxwiz.cli import _parser

    return _parser().parse_args(ARGUMENTS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", str(RECIPE), "--topology", "v5e:4x4"], "say which model it will be"),
        ([*ARGUMENTS[:3], "v5e:4by4", *ARGUMENTS[4:]], "GENERATION:SHAPE"),
        (["plan", str(ROOT / "configs/data/quickstart.yaml"), *ARGUMENTS[2:]], "config of the train stage"),
        (
            ["plan", str(RECIPE), "batch.micro_batches=512", *ARGUMENTS[2:]],
            "must be a multiple of 512 micro-batches x 16",
        ),
        ([*ARGUMENTS, "--decode", "--rows", "7"], "--rows 7"),
        (["plan", str(RECIPE), *ARGUMENTS[2:5], "no/such.json"], "no/such.json"),
    ],
)
def test_faults_are_one_message(arguments: list[str], said: str, planner: list[Request], capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_without_libtpu_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
    assert main(ARGUMENTS) == 2
    assert "pip install 'jaxwiz[plan]'" in capsys.readouterr().err


SHAPES = [*sorted((ROOT / "configs/model").glob("codellama*.yaml")), ROOT / "configs/model/starcoder-15b.yaml"]


@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_shipped_shapes_have_the_size_in_their_name(path: Path):
    from jaxwiz.model.params import count_params

    billions = float(path.stem.rpartition("-")[2].removesuffix("b"))
    assert count_params(read_model(path)) / 1e9 == pytest.approx(billions, rel=0.05)


def test_a_shape_with_an_unknown_field_is_refused(tmp_path: Path):
    (tmp_path / "model.yaml").write_text("vocab: 3\n")
    with pytest.raises(ConfigError, match="vocab"):
        read_model(tmp_path / "model.yaml")


HBM_ERRORS = {
    "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.": 4.75,
    "Ran out of memory on HBM, the total memory (18.00G) exceeds available HBM (15.75G).": 2.25,
}


@pytest.mark.parametrize(("message", "missing"), HBM_ERRORS.items())
def test_what_the_compiler_says_of_memory_is_read(message: str, missing: float):
    found = compiler._explained(f"JaxRuntimeError: RESOURCE_EXHAUSTED: {message}", "")
    assert isinstance(found, OutOfMemory)
    assert found.missing == pytest.approx(missing * 2**30)


def worker(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Lets a few lines of Python stand in for the compiling process; `folder` is where it works."""
    monkeypatch.setattr(compiler, "require_libtpu", lambda: None)
    monkeypatch.setattr(compiler, "LOCK", Path(compiler.tempfile.gettempdir()) / "jaxwiz-test-plan.lock")
    run = compiler.subprocess.run

    def start(arguments: list[str], **options: object):
        script = f"import sys, pathlib; folder = pathlib.Path(sys.argv[1])\n{code}"
        return run([sys.executable, "-c", script, arguments[-1]], **options)

    monkeypatch.setattr(compiler.subprocess, "run", start)


def test_warnings_of_waste_are_errors(monkeypatch: pytest.MonkeyPatch):
    said = "W1 spmd_partitioner.cc:652] [SPMD] Involuntary full rematerialization. The compiler cannot go from ..."
    worker(monkeypatch, f"sys.stderr.write({said!r}); (folder / 'compiled.pickle').write_bytes(b'')")
    with pytest.raises(UserError, match="Involuntary full rematerialization"):
        compiler.compile_step(command.read_request(_options()))


def test_a_process_that_dies_is_explained_by_its_last_words(monkeypatch: pytest.MonkeyPatch):
    worker(monkeypatch, "import os; os.write(2, b'F0000 check failed: topology'); os._exit(134)")
    with pytest.raises(UserError, match=r"exit code 134.*check failed: topology"):
        compiler.compile_step(command.read_request(_options()))


def test_another_holder_of_libtpu_is_named_and_waited_for(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(compiler, "_SECONDS_BETWEEN_TRIES", 0.0)
    monkeypatch.setattr(compiler, "_MOST_TRIES", 2)
    worker(monkeypatch, "(folder / 'error.txt').write_text('RuntimeError: see /tmp/libtpu_lockfile'); sys.exit(1)")
    with pytest.raises(UserError, match="another process still holds libtpu"):
        compiler.compile_step(command.read_request(_options()))
    assert "waiting until it ends" in capsys.readouterr().err


def test_plans_wait_for_each_other_and_say_for_whom(monkeypatch: pytest.MonkeyPatch, capsys):
    worker(monkeypatch, "(folder / 'error.txt').write_text('UserError: it had its turn'); sys.exit(1)")
    with open(compiler.LOCK, "w") as held:
        held.write("4711\n")
        held.flush()
        compiler.fcntl.flock(held, compiler.fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(compiler.compile_step, command.read_request(_options()))
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            compiler.fcntl.flock(held, compiler.fcntl.LOCK_UN)
            with pytest.raises(UserError, match="it had its turn"):
                waiting.result(timeout=30)
    assert "process 4711 holds libtpu" in capsys.readouterr().err


def test_a_search_reports_what_it_tried_and_the_plan_of_the_largest_that_fits(
    planner: list[Request], monkeypatch, capsys
):
    def largest(request: Request) -> list[Attempt]:
        plans = [plan_of(request, compiled(request, peak=peak * 2**30)) for peak in (10, 15)]
        return [
            Attempt(f"batch.micro_batches={32 // peak}", request, plan)
            for peak, plan in zip((16, 32), plans, strict=True)
        ]

    monkeypatch.setattr(command, "largest_batch", largest)
    assert main([*ARGUMENTS, "--search"]) == 0
    printed = capsys.readouterr().out
    assert "batch.micro_batches=2                        fits: peak 10.00 GiB" in printed
    assert "batch.micro_batches=1                        leaves less than 5% free" in printed
    assert "best: batch.micro_batches=2" in printed


def test_a_step_that_does_not_fit_is_told_by_how_much_and_what_would(planner: list[Request], monkeypatch, capsys):
    monkeypatch.setattr(command, "make_plan", lambda request: OutOfMemory("no room", 3 * 2**30))
    fitting = [Attempt("compute.remat=full", request, plan_of(request, compiled(request))) for request in [_request()]]
    monkeypatch.setattr(command, "advice", lambda request: fitting)
    assert main(ARGUMENTS) == 1
    printed = capsys.readouterr().out
    assert "DOES NOT FIT: 3.00 GiB a device are missing" in printed
    assert "best: compute.remat=full" in printed
