"""The structure that DESIGN promises, held by reading the source: levels, stage borders, file length, import weight."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxwiz"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

LEVELS = {
    **dict.fromkeys(("records", "files", "console", "config", "exit_codes", "html_page"), 0),
    **dict.fromkeys(("text", "llm", "sharding", "sandbox", "fanout"), 1),
    **dict.fromkeys(("model", "problems"), 2),  # problems makes programs for the sandbox
    **dict.fromkeys(("checkpoint", "clean"), 3),  # clean knows the problems
    **dict.fromkeys(("evolve", "data", "train", "convert", "sample", "evaluate"), 4),
    **dict.fromkeys(("plan", "dry_run", "stages", "step", "pipeline", "launch", "doctor", "serve"), 5),
    **dict.fromkeys(("insight", "evolve_loop"), 5),
    **dict.fromkeys(("commands", "cli"), 5),
}
STAGES = {name for name, level in LEVELS.items() if level == 4}
ALLOWED_BETWEEN_STAGES = {("train", "jaxwiz.data.feed")}


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def jaxwiz_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("jaxwiz")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it in full"
            if node.module == "jaxwiz":
                found |= {f"jaxwiz.{name.name}" for name in node.names}
            elif node.module and node.module.startswith("jaxwiz."):
                found.add(node.module)
    return {name for name in found if name not in ("jaxwiz", "jaxwiz.__version__")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_downwards(path: Path):
    package = package_of(path)
    if package == "__init__":
        assert not jaxwiz_imports(path)
        return
    for imported in jaxwiz_imports(path):
        target = imported.split(".")[1]
        assert target in LEVELS, f"{path}: {imported} has no level; add it to DESIGN's table"
        if target == package or (package, imported) in ALLOWED_BETWEEN_STAGES:
            continue
        if target in STAGES and package in STAGES:
            pytest.fail(f"{path} imports {imported}: stages talk through files")
        within_shell = LEVELS[package] in (0, 5) and LEVELS[target] == LEVELS[package]
        assert LEVELS[target] < LEVELS[package] or within_shell, f"{path} imports {imported}: not downwards"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_and_says_what_it_is(path: Path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_package_never_needs_torch(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & {"torch", "transformers", "tensorflow"}


def modules_loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()} | set(done.stdout.split())


def test_help_needs_nothing_but_the_standard_library():
    loaded = modules_loaded_by("import jaxwiz.cli; jaxwiz.cli._parser().format_help()")
    assert not loaded & {"jax", "numpy", "pydantic", "yaml", "rich", "jinja2"}


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_configs_load_without_jax_or_numpy(stage: str):
    loaded = modules_loaded_by(f"import jaxwiz.{stage}.config")
    assert not loaded & {"jax", "numpy", "tokenizers", "tensorflow_datasets", "orbax"}


def test_evaluation_and_evolution_run_without_jax():
    loaded = modules_loaded_by("import jaxwiz.evaluate.run, jaxwiz.evolve.run")
    assert "jax" not in loaded


def test_writing_shards_loads_neither_grain_nor_jax():
    loaded = modules_loaded_by("import jaxwiz.data.shards")
    assert not loaded & {"jax", "grain"}
