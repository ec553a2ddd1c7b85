"""The doctor on this machine: alone, and as two real processes of which one is odd."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from jaxwiz.doctor.host import driver, file_system, look_at_host, try_folder
from jaxwiz.doctor.together import check_folder, clock_skew, reach_next
from jaxwiz.sharding.processes import Processes

ROOT = Path(__file__).resolve().parents[2]


def test_a_folder_is_used_as_training_uses_it_and_left_as_it_was(tmp_path: Path) -> None:
    assert try_folder(epath.Path(tmp_path) / "runs", "a") == ""
    assert list((tmp_path / "runs").iterdir()) == []
    (tmp_path / "file").write_text("")
    assert try_folder(epath.Path(tmp_path) / "file", "a").startswith("failed: [Errno")


class RefusingBucket(MemoryFileSystem):
    def open(self, path: str, *arguments: Any, **options: Any) -> Any:
        raise ValueError(f"403: {path}: no right to write")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type], epath.Path]]:
    """Returns what gives a bucket whose client is replaced by another one of the same interface (fsspec)."""
    cached = epath.backend.fsspec_backend._get_filesystem

    def replaced(client: type) -> epath.Path:
        cached.cache_clear()
        monkeypatch.setitem(_registry, "gcs", client)
        return epath.Path("gs://bucket/runs")

    yield replaced
    cached.cache_clear()


def test_a_bucket_is_tried_by_its_url(bucket: Callable[[type], epath.Path]) -> None:
    folder = bucket(MemoryFileSystem)
    assert try_folder(folder, "a") == "" and not (folder / ".doctor-a").exists()
    assert check_folder(Processes(), folder) == "ok, gs"
    assert look_at_host(0, folder).free_gib == math.inf


def test_a_bucket_that_refuses_is_told(bucket: Callable[[type], epath.Path]) -> None:
    found = try_folder(bucket(RefusingBucket), "a")
    assert re.fullmatch(r"failed: ValueError: 403: .*file: no right to write", found)


def test_the_file_system_is_that_of_the_innermost_mount() -> None:
    assert file_system(epath.Path("/proc/self")) == "proc"
    assert file_system(epath.Path("/")) != "unknown"


def test_one_process_agrees_with_itself(tmp_path: Path) -> None:
    alone = Processes()
    assert clock_skew(alone) == 0
    assert reach_next(alone) == "alone"
    assert re.fullmatch(r"ok, \w+", check_folder(alone, epath.Path(tmp_path)))


def test_a_driver_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Driver/library version mismatch'; exit 18\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert driver() == "failed: nvidia-smi: Driver/library version mismatch"
    program.write_text("#!/bin/sh\necho 580.1; echo 580.1\n")
    assert driver() == "NVIDIA 580.1"


def examined(*command: str, **environ: str) -> tuple[int, str, str]:
    every = {**os.environ, "PYTHON": sys.executable, "GPUS": "0", **environ}
    done = subprocess.run(command, cwd=ROOT, env=every, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_this_machine_is_sound_and_more_disk_than_it_has_is_missed(tmp_path: Path) -> None:
    arguments = ("doctor", "--folder", str(tmp_path), "--min-free-gib", "1e9")
    code, out, _ = examined(sys.executable, "-m", "jaxwiz.cli", *arguments)
    assert code == 1
    assert re.search(r"^process 0 \| \S+ \| 1 x cpu, .* \| all-reduce one device \| attention xla, \de-0\d$", out, re.M)
    assert out.splitlines()[-1] == "1 process(es), 1 fault(s)" and "1e+09 needed; remove old runs" in out


@pytest.mark.multiprocess
def test_two_processes_of_which_one_is_odd(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: pod\ncommand: [doctor]\naccelerator: {kind: cpu, nodes: 2}\n")
    program = str(ROOT / "tests" / "doctor" / "odd_host.sh")
    command = ("launch/local.sh", "2", "doctor", str(spec), "--min-free-gib", "0")
    code, out, err = examined(*command, JAXWIZ=program, FOLDER=str(tmp_path))
    assert code == 1, err
    odd = [text for text in out.splitlines() if text.startswith("FAULT")]
    assert all(text.startswith("FAULT process 1 (") for text in odd), out
    told = "\n".join(odd)
    assert "devices: 2 x cpu, elsewhere 1 x cpu" in told
    assert "folder failed: it is not the folder that process 0 sees; mount the bucket or share there" in told
    assert re.search(r"its clock is off by \+(89|90)\.\d s", told)
    lines = [text for text in out.splitlines() if text.startswith("process ")]
    assert len(lines) == 2 and all(
        re.search(r"ports ok .* all-reduce \d+\.\d\d GB/s \| attention xla", text) for text in lines
    )


@pytest.mark.multiprocess
def test_two_processes_that_are_alike(tmp_path: Path) -> None:
    environ = {"JAXWIZ": str(Path(sys.executable).with_name("jaxwiz"))}
    command = ("launch/local.sh", "2", "doctor", "--folder", str(tmp_path), "--min-free-gib", "0")
    code, out, err = examined(*command, **environ)
    assert code == 0, out + err
    assert out.splitlines()[-1] == "2 process(es), 0 fault(s)"
    assert "before the devices" not in out and "2 process(es), 2 device(s), 1 slice(s)" in out
