"""Normalisation, and words."""

from jaxwiz.clean.texts import normalise, words_of


def test_normalisation_is_nfkc_lower_case_and_single_spaced():
    assert normalise(" Ｆull  WIDTH\r\n\tﬁne\u00a0x²  ") == "full width fine x2"
    assert normalise("\n\t ") == ""


def test_words_are_runs_of_letters_digits_and_underscores():
    assert words_of("def is_ok(x): return x+1 # né") == ["def", "is_ok", "x", "return", "x", "1", "né"]
