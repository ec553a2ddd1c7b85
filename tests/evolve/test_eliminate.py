"""The elimination rules, by tables of boundary cases."""

import pytest

from jaxwiz.evolve.eliminate import (
    fault_of_answer,
    fault_of_evolution,
    is_apology,
    is_empty_of_content,
    leaks_prompt,
    parse_verdict,
)
from jaxwiz.evolve.operations import load_prompts
from jaxwiz.llm.protocol import GenerationResult

OPERATION = load_prompts(["in_depth/deepen"]).operations["in_depth/deepen"]
DETECTORS = ("answered_instead", "asks_back")


def result(text: str, finish_reason: str = "stop") -> GenerationResult:
    return GenerationResult(text, finish_reason, 1, 1)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Equal", "equal"),
        (" equal.\n", "equal"),
        ("**Equal**", "equal"),
        ("EQUAL: both ask the same.", "equal"),
        ("Equal\nBecause nothing was added.", "equal"),
        ("Not Equal", "not_equal"),
        ("not equal", "not_equal"),
        ('"Not Equal".', "not_equal"),
        ("Not-Equal", "not_equal"),
        ("Not Equal, since the second is deeper.", "not_equal"),
        ("", "unclear"),
        ("Not equally deep", "unclear"),
        ("Equally deep", "unclear"),
        ("Unequal", "unclear"),
        ("Equal, Not Equal", "equal"),
        ("Equal or Not Equal", "unclear"),
        ("The prompts are not equal.", "unclear"),
        ("I would say they are Equal", "unclear"),
        ("Here is a Python function that returns whether two numbers are equal.", "unclear"),
    ],
)
def test_a_verdict_is_exactly_the_verdict(reply, verdict):
    assert parse_verdict(reply) == verdict


@pytest.mark.parametrize(
    ("response", "rejected"),
    [
        ("sorry " + "word " * 78, True),  # 79 words
        ("sorry " + "word " * 79, False),  # 80
        ("sorry " + "word " * 80, False),  # 81
        ("I'm SORRY, but no.", True),
        ("Sorryless", False),
        ("Use a dict.", False),
        ("This says it:\n```python\nprint('sorry')\n```\n", False),
        ("Sorry:\n```python\npass\n```\n", True),
        ("An open fence:\n```python\nprint('sorry')\n", False),
    ],
)
def test_an_apology_is_short_and_says_sorry_outside_code(response, rejected):
    assert is_apology(response) is rejected


@pytest.mark.parametrize(
    ("response", "empty"),
    [
        ("", True),
        (" \n\t", True),
        ("...", True),
        ("?!", True),
        ("The, of and to!", True),
        ("___", True),
        ("```\n```", True),
        ("[]", False),
        ("`{}`", False),
        ("()", False),
        ('""', False),
        ("42", False),
        ("No.", False),
        ("The end", False),
        ("漢字", False),
        ("x", False),
    ],
)
def test_punctuation_and_stop_words_alone_are_no_content(response, empty):
    assert is_empty_of_content(response) is empty


@pytest.mark.parametrize(
    ("evolved", "leaks"),
    [
        ("### Rewritten Prompt\nSort a list.", True),
        ("#rewritten  PROMPT#: Sort a list.", True),
        ("Here is the Given\nPrompt again.", True),
        ("If it asks about an issue, ask about that issue in more depth and more breadth. Sort.", True),
        ("Turn the prompt below into one that strong assistants find hard.", True),
        ("Created prompt: sort a list.", True),
        ("Rewrite the given prompts.", False),
        ("Write a shell prompt.", False),
        ("Turn the prompt below into one.", False),
    ],
)
def test_copied_wording_is_a_leak(evolved, leaks):
    assert leaks_prompt(evolved, "Sort a list.", OPERATION) is leaks


def test_wording_that_stood_in_the_parent_is_no_leak():
    parent = "Explain the words 'given prompt' to a child."
    assert not leaks_prompt(f"{parent} Use ten words.", parent, OPERATION)
    assert leaks_prompt(f"{parent} Rewritten prompt.", parent, OPERATION)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (result("Sort a list in place.", "length"), "evolution_truncated"),
        (result("Sort a list in place.", "content_filter"), "evolution_filtered"),
        (result("", "context_length"), "evolution_too_long"),
        (result("Sort a list in place.", "tool_calls"), "evolution_unfinished"),
        (result(" ... "), "evolution_empty"),
        (result("\n Sort a list.\n"), "unchanged"),
        (result("Rewritten Prompt: Sort it twice."), "leak"),
        (result("def sort(x): pass"), "answered_instead"),
        (result("Please provide the list."), "asks_back"),
        (result("Sort a list in place, in linear time."), ""),
    ],
)
def test_the_first_fault_of_an_evolution_names_it(answer, reason):
    assert fault_of_evolution("Sort a list.", answer, OPERATION, DETECTORS) == reason


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (result("x = 1", "length"), "answer_truncated"),
        (result("", "content_filter"), "answer_filtered"),
        (result("."), "answer_empty"),
        (result("Sorry, I can't."), "apology"),
        (result("Sure, which list?"), "answer_asks_back"),
        (result("x = 1"), ""),
    ],
)
def test_the_first_fault_of_an_answer_names_it(answer, reason):
    assert fault_of_answer(answer, DETECTORS) == reason


def test_detectors_are_optional():
    assert fault_of_evolution("Sort a list.", result("def sort(x): pass"), OPERATION) == ""
    assert fault_of_evolution("Sort a list.", result("Please provide the list."), OPERATION) == ""
    assert fault_of_answer(result("Sure, which list?")) == ""
