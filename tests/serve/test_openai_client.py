"""The official `openai` client against the server over the tiny model."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from jaxwiz.sample.requests import Request
from jaxwiz.text.tokenizer import Tokenizer
from tests.serve.conftest import RunningServer

PROMPT = "def add(first, second):\n    return"
TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Write a function."}]


@pytest.fixture(scope="module")
def client(server: RunningServer):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none wanted", max_retries=0) as made:
        yield made


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text))


def test_a_completion_is_what_the_engine_answers(client: openai.OpenAI, make_engine, tokenizer: Tokenizer):
    found = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=12, temperature=0)
    (alone,) = make_engine().generate([Request(ids_of(tokenizer, PROMPT), 12)])
    (choice,) = found.choices
    assert choice.text == alone.text and choice.text
    assert choice.finish_reason == "length"
    assert found.usage.completion_tokens == 12
    assert found.usage.prompt_tokens == len(ids_of(tokenizer, PROMPT))
    assert found.usage.total_tokens == found.usage.prompt_tokens + 12
    assert found.object == "text_completion" and found.model == "tiny"


def test_prompts_may_be_several_and_ids(client: openai.OpenAI, tokenizer: Tokenizer):
    ids = ids_of(tokenizer, PROMPT)
    one = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=6, temperature=0).choices[0].text
    as_ids = client.completions.create(model="tiny", prompt=ids, max_tokens=6, temperature=0).choices[0].text
    several = client.completions.create(
        model="tiny", prompt=[PROMPT, "import sys"], n=2, max_tokens=6, temperature=0
    ).choices
    assert as_ids == one
    assert [choice.index for choice in several] == [0, 1, 2, 3]
    assert several[0].text == several[1].text == one and several[2].text == several[3].text != one


def test_n_answers_differ_and_a_seed_makes_them_again(client: openai.OpenAI):
    def ask(seed: int):
        found = client.completions.create(model="tiny", prompt=PROMPT, n=3, max_tokens=10, temperature=1, seed=seed)
        return [choice.text for choice in found.choices]

    assert len(set(ask(1))) == 3
    assert ask(1) == ask(1) != ask(5)


def test_a_stream_is_the_whole_in_pieces(client: openai.OpenAI):
    asked = {"model": "tiny", "prompt": PROMPT, "n": 2, "max_tokens": 40, "temperature": 1.0, "seed": 3}
    whole = client.completions.create(**asked)
    texts, reasons, usage = ["", ""], ["", ""], None
    for chunk in client.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_stop_texts_end_the_answer_and_are_no_part_of_it(client: openai.OpenAI):
    asked = {"model": "tiny", "prompt": PROMPT, "max_tokens": 60, "temperature": 0}
    whole = client.completions.create(**asked).choices[0].text
    stop = whole[len(whole) // 2 :][:3]
    cut = client.completions.create(**asked, stop=[stop, "never seen"]).choices[0]
    streamed = [chunk.choices[0].text for chunk in client.completions.create(**asked, stop=stop, stream=True)]
    assert cut.text == whole[: whole.index(stop)] == "".join(streamed)
    assert cut.finish_reason == "stop"


def test_logprobs_of_completions(client: openai.OpenAI):
    found = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=8, temperature=0, logprobs=3)
    logprobs = found.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == 8
    assert logprobs.text_offset[:2] == [0, len(found.choices[0].text[: logprobs.text_offset[1]])]
    for token, value, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert value <= 0
        assert token not in top or top[token] == value
        assert value == max(top.values())  # greedy


def test_echo_puts_the_prompt_before(client: openai.OpenAI):
    plain = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=5, temperature=0).choices[0].text
    echoed = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=5, temperature=0, echo=True)
    assert echoed.choices[0].text == PROMPT + plain


def test_a_bias_forbids_a_token(client: openai.OpenAI, tokenizer: Tokenizer):
    asked = {"model": "tiny", "prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": 1}
    first = client.completions.create(**asked).choices[0].logprobs.tokens[0]
    (id,) = ids_of(tokenizer, first)
    other = client.completions.create(**asked, logit_bias={str(id): -100}).choices[0].logprobs.tokens[0]
    assert other != first


def test_a_chat_and_its_stream(client: openai.OpenAI):
    asked = {"model": "tiny", "messages": TURNS, "temperature": 0.7, "seed": 9, "max_completion_tokens": 24}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    message = whole.choices[0].message
    assert message.role == "assistant" and message.content
    entries = whole.choices[0].logprobs.content
    assert len(entries) == whole.usage.completion_tokens
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in entries)
    pieces = list(client.chat.completions.create(**asked, stream=True))
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == message.content
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices[0].finish_reason] == ["length"]


def test_a_message_may_come_in_parts(client: openai.OpenAI):
    parts = [{"type": "text", "text": "Write a "}, {"type": "text", "text": "function."}]
    asked = {"model": "tiny", "temperature": 0, "max_tokens": 8}
    joined = client.chat.completions.create(**asked, messages=[TURNS[0], {"role": "user", "content": parts}])
    plain = client.chat.completions.create(**asked, messages=TURNS)
    assert joined.choices[0].message.content == plain.choices[0].message.content


def test_models(client: openai.OpenAI):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "jaxwiz"
    with pytest.raises(openai.NotFoundError, match="this server has 'tiny'"):
        client.models.retrieve("gpt-9")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 100_000}, "n"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [999_999]}, None),
        ({"prompt": ""}, None),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logprobs": 21}, "logprobs"),
        ({"presence_penalty": 1.5}, "presence_penalty"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 7}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
    ],
)
def test_a_fault_of_the_request_is_named(client: openai.OpenAI, changes: dict, param: str | None):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{"model": "tiny", "prompt": PROMPT, "max_tokens": 4, **changes})
    assert caught.value.param == param
    assert (param or next(iter(changes))) in caught.value.message


def test_another_model_is_not_found(client: openai.OpenAI):
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="other", prompt="x")
    assert caught.value.code == "model_not_found"


def test_answers_do_not_depend_on_what_else_is_asked(client: openai.OpenAI):
    def ask(number: int) -> str:
        found = client.completions.create(
            model="tiny", prompt=PROMPT * (1 + number % 3), max_tokens=5 + 3 * (number % 7), temperature=1, seed=number
        )
        return found.choices[0].text

    alone = [ask(number) for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(12))) == alone
