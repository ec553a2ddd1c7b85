"""Messages on the console and in a log file, and what keeps to the file."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxwiz import console


def test_messages_are_noted_in_the_log_with_their_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "logs" / "process-0.log"
    console.say("before")
    for message in ("first", "second"):
        with console.logged_to(log):
            console.say(message)
    assert capsys.readouterr().err == "before\nfirst\nsecond\n"
    lines = log.read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["first", "second"]
    assert all(len(line.split(" ", 2)[0]) == len("2026-01-01") for line in lines)


def test_the_error_that_ends_it_is_noted(tmp_path: Path) -> None:
    with pytest.raises(KeyError), console.logged_to(tmp_path / "log"):
        raise KeyError("x")
    assert "ended by KeyError: 'x'" in (tmp_path / "log").read_text()


def test_a_process_off_the_console_prints_nothing_there_whoever_prints(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from jaxwiz import console
with console.logged_to(Path(sys.argv[1]), on_console=False):
    console.say("of jaxwiz")
    print("of Python")
    os.write(2, b"of a library\\n")
    with console.progress("train", 1, "steps") as advance:
        advance(1)
console.say("afterwards")
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "log")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "afterwards\n")
    text = (tmp_path / "log").read_text()
    assert all(part in text for part in ("of jaxwiz", "of Python", "of a library", "train: 1/1 steps"))
    assert text.count("of jaxwiz") == 1
