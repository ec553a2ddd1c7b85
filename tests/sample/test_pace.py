"""Prompts are read whole, in chunks of few widths."""

from jaxwiz.sample.pace import ELSEWHERE, ON_CPU, PAGE_TOKENS, Pace


def test_a_prompt_is_cut_into_whole_chunks_and_the_smallest_that_holds_the_rest():
    pace = Pace(chunks=(2, 8), prompt_tokens=1, steps=1, page_by_page=True)
    assert list(pace.chunks_between(0, 19)) == [(0, 8, 8), (8, 8, 8), (16, 3, 8)]
    assert list(pace.chunks_between(5, 15)) == [(5, 8, 8), (13, 2, 2)]
    assert list(pace.chunks_between(4, 4)) == []


def test_chunks_after_shared_pages_are_those_of_the_whole_prompt():
    """So that a prompt whose beginning was read before gives the same bits; widths beyond a page give that up."""
    alone = list(ON_CPU.chunks_between(0, 300))
    assert list(ON_CPU.chunks_between(2 * PAGE_TOKENS, 300)) == alone[2:]
    assert ELSEWHERE.chunks[-1] > PAGE_TOKENS


def test_pages_attended_to_at_once_are_enough_and_of_few_numbers():
    for pages in range(1, 101):
        assert pages <= ELSEWHERE.columns_of_block(pages, 100) <= min(100, 2 * pages - 1)
        assert pages <= ELSEWHERE.columns_of_chunk(pages, 100) <= min(100, max(1, 4 * (pages - 1)))
        assert ON_CPU.columns_of_block(pages, 100) is ON_CPU.columns_of_chunk(pages, 100) is None
    assert {ELSEWHERE.columns_of_chunk(pages, 100) for pages in range(1, 101)} == {1, 4, 16, 64, 100}
