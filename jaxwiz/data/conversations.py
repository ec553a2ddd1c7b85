"""From an entry of a source file to a conversation: what each format means, and what makes an entry unusable.

    evolved tasks    schema "jaxwiz.evolved_task.v1", or a key "root"
    seeds, Alpaca    {"instruction", "input", "output"}
    OpenAI           {"messages": [{"role", "content"}, ...]}
    ShareGPT         {"conversations": [{"from", "value"}, ...], "system"}

Nothing is repaired silently. What counts as nothing, because published sets are full of it: a null or missing "input",
and a blank system message.
"""

from typing import Any

from jaxwiz.data.entries import Fault
from jaxwiz.records import EvolvedTask, Seed
from jaxwiz.text.messages import Message, Role, question_and_answer

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model"), "assistant"),
}
_CHAT_KEYS = ("messages", "conversations")


def is_evolved(entry: dict[str, Any]) -> bool:
    """Returns whether an entry is a task of the evolve stage."""
    if entry.get("schema") is not None:
        return bool(entry["schema"] == EvolvedTask.SCHEMA)
    return entry.get("root") is not None and _chat_key(entry) is None


def read_conversation(entry: Any) -> tuple[Message, ...] | Fault:
    """Returns the messages of an entry: perhaps a system message, then user and assistant in turn; or why not."""
    if isinstance(entry, Fault):
        return entry
    if not isinstance(entry, dict):
        return Fault("not an object", f"{type(entry).__name__} instead of an object")
    key = None if is_evolved(entry) else _chat_key(entry)
    return _read_task(entry) if key is None else _read_chat(entry, key)


def _chat_key(entry: dict[str, Any]) -> str | None:
    return next((key for key in _CHAT_KEYS if entry.get(key) is not None), None)


def _read_task(entry: dict[str, Any]) -> tuple[Message, ...] | Fault:
    schema = entry.get("schema")
    if schema not in (None, EvolvedTask.SCHEMA, Seed.SCHEMA):
        return Fault("unknown schema", f"{schema!r}; known: {EvolvedTask.SCHEMA}, {Seed.SCHEMA}")
    values = {**entry, "input": "" if entry.get("input") is None else entry["input"]}
    for name in ("instruction", "input", "output", *(("id", "root") if is_evolved(entry) else ())):
        if name not in values:
            others = f", and so are {' and '.join(map(repr, _CHAT_KEYS))}" if name == "instruction" else ""
            return Fault("missing field", f"{name!r} is missing{others}")
        fault = _text_fault(values[name], repr(name))
        if fault:
            return fault
    if not values["instruction"].strip():
        return Fault("empty instruction", "'instruction' is blank")
    if not values["output"].strip():
        return Fault("empty answer", "'output' is blank")
    if values.get("rejected") and is_evolved(entry):
        return Fault("eliminated", f"the evolve stage rejected it: {values['rejected']}")
    return question_and_answer(values["instruction"], values["input"], values["output"])


def _read_chat(entry: dict[str, Any], key: str) -> tuple[Message, ...] | Fault:
    turns = entry[key]
    if not isinstance(turns, list):
        return Fault("wrong type", f"{key!r} is {type(turns).__name__}; it must be a list of messages")
    system = entry.get("system")
    if system is not None:
        turns = [{"role": "system", "content": system}, *turns]
    messages: list[Message] = []
    for number, turn in enumerate(turns, start=1 if system is None else 0):
        message = _read_message(turn, f"message {number}")
        if isinstance(message, Fault):
            return message
        if message.role != "system" or message.content.strip():
            messages.append(message)
    return _order_fault(messages) or tuple(messages)


def _read_message(turn: Any, name: str) -> Message | Fault:
    if not isinstance(turn, dict):
        return Fault("wrong type", f"{name} is {type(turn).__name__}; it must be an object")
    role = turn.get("role", turn.get("from"))
    if not isinstance(role, str) or role not in _ROLES:
        return Fault("unknown role", f"the role of {name} is {role!r}; known: {', '.join(_ROLES)}")
    content: Any = turn.get("content", turn.get("value"))
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        texts = [part.get("text") for part in content]
        content = "".join(texts) if all(isinstance(text, str) for text in texts) else content
    fault = _text_fault(content, name)
    if fault:
        return fault
    if _ROLES[role] != "system" and not content.strip():
        return Fault("empty answer" if _ROLES[role] == "assistant" else "empty instruction", f"{name} is blank")
    return Message(_ROLES[role], content)


def _text_fault(value: Any, name: str) -> Fault | None:
    if not isinstance(value, str):
        return Fault("wrong type", f"{name} is {type(value).__name__}; it must be a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return Fault("invalid Unicode", f"{name} holds half of a surrogate pair at character {error.start}")
    return None


def _order_fault(messages: list[Message]) -> Fault | None:
    """Returns what is wrong with the order of turns, if anything is."""
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    for number, turn in enumerate(turns):
        wanted = "assistant" if number % 2 else "user"
        if turn.role != wanted:
            return Fault("bad turn order", f"turn {number + 1} is the {turn.role}'s; it must be the {wanted}'s")
    if len(turns) % 2 or not turns:
        return Fault("bad turn order", "it must end with an answer" if turns else "there are no turns")
    return None
