"""Each test of the decontaminator finds what only it can find, and lets innocent neighbours pass."""

import pytest

from jaxwiz.clean.decontaminate import BenchmarkItem, Decontaminator, Hit

PROMPT = '''def drop_pebbles(heaps: list, limit: int) -> list:
    """ Take from every heap the pebbles beyond the limit and give back what is left, heap by heap.
    Heaps which were empty already are left out of the answer altogether.
    >>> drop_pebbles([3, 0, 12], 5)
    [3, 5]
    """
'''
SOLUTION = "    return [min(heap, limit) for heap in heaps if heap]\n"
INDEX = Decontaminator(
    [
        BenchmarkItem("Bench/0", PROMPT, SOLUTION, "drop_pebbles"),
        BenchmarkItem("Bench/1", "Add one.", "    return x + 1\n", "increment"),
        BenchmarkItem("Bench/2", "Return the heap that is left without its stones.", ""),
    ]
)


@pytest.mark.parametrize(
    ("text", "test"),
    [
        (f"Solve this:\n{PROMPT}", "substring"),
        ("Ｒeturn [MIN(heap,   limit) for heap in heaps\n\tif heap]", "substring"),  # full-width R, case, spaces
        ("return x + 1", "equal"),
        (
            "Please take from every heap the pebbles beyond the limit and then tell me how many there were.",
            "common_run",
        ),
        ("Each time, return the heap that is left without its pebbles.", "covered_runs"),
        ("Improve drop_pebbles so that for [3, 0, 12], 5 it does not loop.", "name_and_example"),
    ],
)
def test_each_test_finds_its_case(text, test):
    hit = INDEX.find(text)
    assert hit == Hit({"equal": "Bench/1", "covered_runs": "Bench/2"}.get(test, "Bench/0"), test)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Write a function that returns x + 1.",  # contains the short solution, isn't equal to it
        "Call drop_pebbles on your own data.",  # the name alone
        "Sort [3, 0, 12], 5 without a library function.",  # the example alone
        "Take from every heap the pebbles beyond the border.",  # nine words in common
        "Write a Python function that gives back the smallest number of a list.",
    ],
)
def test_innocent_text_passes(text):
    assert INDEX.find(text) is None


def test_a_task_spread_over_instruction_and_output_is_found():
    assert INDEX.find("Write drop_pebbles.", "", "It gives for [3, 0, 12], 5 the right heaps.") is not None
