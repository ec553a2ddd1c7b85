import pickle
import traceback
from pathlib import Path

import pytest

from jaxwiz.llm.config import OpenAIBackend
from jaxwiz.llm.key import ApiKey, read_key
from jaxwiz.llm.protocol import GenerationError

KEY = "sk-a-very-secret-key"


def backend(**changes) -> OpenAIBackend:
    return OpenAIBackend(**{"base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": "TEST_KEY", **changes})


def test_the_key_comes_from_the_file_before_the_variable(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "from-the-variable")
    (tmp_path / "key").write_text(f"  {KEY}\n")
    assert read_key(backend()).reveal() == "from-the-variable"
    assert read_key(backend(api_key_file=str(tmp_path / "key"))).reveal() == KEY


def test_a_key_file_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text(KEY)
    assert read_key(backend(api_key_file="~/key")).reveal() == KEY


def test_an_endpoint_may_want_no_key():
    key = read_key(backend(api_key_env=""))
    assert key.reveal() == "none"
    assert key.hidden_in("none of it") == "none of it"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read the key"), ("", "holds no key"), (f"{KEY} x", "one word"), (f"{KEY}é", "one word")],
)
def test_a_key_that_cannot_be_used_is_told_without_it(content, message, tmp_path: Path):
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(GenerationError, match=rf"api_key_file = .*{message}") as caught:
        read_key(backend(api_key_file=str(path)))
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_missing_variable_is_told_by_its_name(monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(GenerationError, match=r"api_key_env = 'TEST_KEY': holds no key; export"):
        read_key(backend())


def test_a_key_shows_itself_to_nobody_who_does_not_ask():
    key = ApiKey(KEY)
    assert KEY not in f"{key} {key!r} {[key]} {vars(ApiKey)}"
    assert key.hidden_in(f"wrong key {KEY}!") == "wrong key (key)!"
    with pytest.raises(TypeError):
        pickle.dumps(key)
