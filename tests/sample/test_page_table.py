"""Pages are given out, shared, remembered and given up as the table says, and none is ever held by accident."""

import random

import pytest

from jaxwiz.sample.page_table import NoPageError, PageTable


def prompt(*pages: int, rest: int = 1) -> list[int]:
    """A prompt of whole pages of four equal tokens and a rest."""
    return [token for page in pages for token in [page] * 4] + [99] * rest


def read(table: PageTable, tokens: list[int]) -> list[int]:
    """Holds the pages of a prompt as the engine does, and makes them known."""
    digests = table.digests(tokens)
    pages = table.shared(digests)
    while len(pages) < -(-len(tokens) // 4):
        pages.append(table.take())
    for digest, page in zip(digests, pages, strict=False):
        table.know(digest, page)
    return pages


def test_whole_pages_that_prompts_begin_with_are_shared():
    table = PageTable(20, 4)
    first = read(table, prompt(1, 2, 3))
    assert first == [0, 1, 2, 3]
    assert read(table, prompt(1, 2, 7))[:2] == first[:2]
    assert read(table, prompt(2, 1))[0] not in first, "what stands before a page counts"
    assert table.in_use == 4 + 2 + 3


def test_the_last_token_is_never_taken_from_others():
    """Its hidden state is needed, and the cache doesn't have it."""
    table = PageTable(20, 4)
    assert len(table.digests(prompt(1, 2, rest=0))) == 1
    assert len(table.digests(prompt(1, 2, rest=1))) == 2
    assert table.digests([5]) == []


def test_pages_are_remembered_until_they_are_needed_the_longest_unused_first():
    table = PageTable(4, 4)
    old = read(table, prompt(1))
    table.release(old)
    new = read(table, prompt(2))
    table.release(new)
    assert table.in_use == 0
    taken = [table.take(), table.take()]
    assert not {*taken} & {old[0], new[0]}, "pages that nobody knows come first"
    assert table.take() == old[0]
    assert table.shared(table.digests(prompt(1))) == []
    assert table.shared(table.digests(prompt(2))) == new[:1]
    with pytest.raises(NoPageError):
        table.take()
    table.grow(5)
    assert table.take() == 4


def test_the_end_of_a_row_is_given_up_before_its_beginning():
    table = PageTable(3, 4)
    pages = read(table, prompt(1, 2))
    table.release(pages)
    assert [table.take() for _ in range(3)] == pages[::-1]


def test_counts_hold_whatever_comes():
    source = random.Random(0)
    table, held = PageTable(24, 4), []
    for _ in range(3000):
        if len(held) == 5 or (held and source.random() < 0.5):
            table.release(held.pop(source.randrange(len(held))))
        else:
            pages = (source.randrange(2) for _ in range(source.randrange(4)))
            held.append(read(table, prompt(*pages, rest=source.randrange(1, 5))))
        used = {page for pages in held for page in pages}
        assert table.in_use == len(used) <= table.count
        written = [pages[-1] for pages in held]
        assert len({*written}) == len(written), "the page that a request writes to is its own"
    for pages in held:
        table.release(pages)
    assert table.in_use == 0
