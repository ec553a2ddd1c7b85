"""Plain data arrives as it was, with its type; everything else is refused, and so is text that no encoder makes."""

import datetime
import itertools
import json
import math
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import pytest

from jaxwiz.sandbox.inside import codec
from jaxwiz.sandbox.inside.codec import NotPlainDataError, decode, encode

ZONE = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
PLAIN = [
    None,
    True,
    False,
    0,
    -1,
    10**6000,
    -(2**70_000),
    1.5,
    -0.0,
    math.inf,
    -math.inf,
    5e-324,
    0.1 + 0.2,
    1 + 2j,
    complex(-0.0, math.inf),
    "",
    'text \0 \n " \\ é 🙂 {}',
    "\ud800",
    "\udcff \ud83d\ude00",  # a lone surrogate, and two that look like a pair but are not one character
    b"",
    b"\x00\xff",
    bytearray(b"x\xff"),
    [],
    [1, "a", None, 2.5, True],
    [[[]], [1, [2, (3, {4})]]],
    (),
    (1,),
    ((1, 2), [3]),
    set(),
    {1, "a", (2, 3)},
    frozenset({1, frozenset({2})}),
    {},
    {"a": 1, 2: [3], (4, 5): {"b": None}, None: (), "t": "d"},
    {"d": [["k"], ["v"]]},
    range(1, 10, 2),
    Counter("hello"),
    OrderedDict([("b", 1), ("a", [2])]),
    defaultdict(list, {1: [2]}),
    deque([1, [2]], maxlen=5),
    Decimal("1.10"),
    Decimal("NaN").copy_sign(Decimal(1)),
    Fraction(-3, 7),
    datetime.date(2024, 2, 29),
    datetime.time(1, 2, 3, 4),
    datetime.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=ZONE),
    datetime.datetime(2024, 2, 29, fold=1),
    datetime.timedelta(days=-1, microseconds=5),
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_plain_data_arrives_with_its_type(value: Any):
    arrived = decode(encode(value))
    assert type(arrived) is type(value)
    if value == value:
        assert arrived == value
    if not isinstance(value, int | str):
        assert repr(arrived) == repr(value).replace("defaultdict(<class 'list'>", "defaultdict(None")
    assert decode(encode([value]))[0] == value or value != value


def test_nan_and_the_sign_of_zero_arrive():
    assert math.isnan(decode(encode(math.nan)))
    assert math.copysign(1, decode(encode(-0.0))) == -1


def test_order_arrives():
    assert list(decode(encode({"b": 1, "a": 2}))) == ["b", "a"]


def test_iterators_arrive_as_iterators_and_views_as_views():
    for iterator in (iter([1, 2]), (x for x in (1, 2)), map(int, "12"), filter(None, [1, 0, 2]), reversed([2, 1])):
        expected = [1, 2]
        arrived = decode(encode(iterator))
        assert arrived != expected, "as in one process, where a generator equals no list"
        assert list(arrived) == expected
    mapping = {"a": 1}
    assert decode(encode(mapping.keys())) == {"a"}
    assert list(decode(encode(mapping.values()))) == [1]
    assert decode(encode(mapping.items())) == {("a", 1)}


def test_subclasses_that_compare_as_their_base_arrive_as_it():
    Point = namedtuple("Point", "x y")

    class Colour(IntEnum):
        RED = 1

    class Words(list):
        pass

    class Text(str):
        def __str__(self) -> str:
            raise RuntimeError("never called")

    for value, expected in ((Point(1, 2), (1, 2)), (Colour.RED, 1), (Words("ab"), ["a", "b"]), (Text("x"), "x")):
        arrived = decode(encode(value))
        assert type(arrived) is type(expected)
        assert arrived == expected


class EqualToAll(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


class Reduced:
    def __reduce__(self) -> Any:
        raise AssertionError("pickled")


class FakeType(type):
    def __eq__(cls, other: object) -> bool:
        return True

    __hash__ = type.__hash__


class Pretender(metaclass=FakeType):
    __class__ = int  # type: ignore[assignment]
    __module__ = "builtins"


@pytest.mark.parametrize(
    "value",
    [EqualToAll(5), [EqualToAll(5)], Reduced(), object(), len, int, lambda: 1, Pretender(), sys, memoryview(b"x"), ...],
    ids=lambda value: type(value).__name__,
)
def test_other_objects_are_refused(value: Any):
    with pytest.raises(NotPlainDataError):
        encode(value)


def test_the_deep_the_cyclic_and_the_endless_are_refused():
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    deep: Any = 1
    for _ in range(codec.MAX_DEPTH + 5):
        deep = (deep,)
    for value in (cyclic, deep, itertools.count()):
        with pytest.raises(NotPlainDataError):
            encode(value)


def test_the_too_large_is_refused():
    with pytest.raises(NotPlainDataError, match="at most"):
        encode("x" * (codec.MAX_BYTES + 1))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"nonsense",
        b"{}",
        b'{"t": [], "s": []}',
        b'{"unknown": []}',
        b'{"s": [[1]]}',
        b'{"d": [[1], []]}',
        b'{"d": 5}',
        b'{"x": "__import__"}',
        b'{"E": ["hello"]}',
        b'{"F": [1, 0]}',
        b'{"M": [0, 0, 0, 0, 0, 0, 0, 0, null]}',
        b'{"n": ["|O8", true, [1], "aaaaaaaa"]}',
        b'{"n": ["<f8", true, [2], "aaaaaaaa"]}',
        b'{"q": [[], "x"]}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"1 2",
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_text_that_no_encoder_makes_is_refused(text: bytes):
    with pytest.raises(NotPlainDataError):
        decode(text)


def test_integers_longer_than_python_prints_arrive_from_a_side_that_has_lifted_the_limit():
    limit = sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(0)
        text = json.dumps(10**5000).encode()
    finally:
        sys.set_int_max_str_digits(limit)
    assert decode(text) == 10**5000
    assert sys.get_int_max_str_digits() == limit


def test_numpy_numbers_and_arrays_arrive_and_objects_in_them_do_not():
    numpy = pytest.importorskip("numpy")
    for value in (numpy.float64(0.1), numpy.int32(-3), numpy.bool_(True), numpy.float32("nan"), numpy.str_("é")):
        arrived = decode(encode(value))
        assert type(arrived) is type(value)
        assert arrived == value or value != value
    for array in (
        numpy.arange(6).reshape(2, 3),
        numpy.array(5.0),
        numpy.zeros((0, 2)),
        numpy.arange(6)[::2].astype(">i4"),
    ):
        arrived = decode(encode(array))
        assert arrived.dtype == array.dtype and arrived.shape == array.shape and (arrived == array).all()
        assert arrived.flags.writeable
    with pytest.raises(NotPlainDataError):
        encode(numpy.array([object()]))
