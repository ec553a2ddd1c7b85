"""Values that cross between candidate and checker: plain data only, and read back without running anyone's code.

Plain data are None, bool, int, float, complex, str (lone surrogates too), bytes, bytearray, range, list, tuple, set,
frozenset, dict and its views, and of the standard library Counter, OrderedDict, defaultdict (without its factory),
deque, Decimal, Fraction, date, time, datetime, timedelta; NumPy numbers and arrays of numbers. Iterators and generators
are run to their end and arrive as iterators. An instance of a subclass crosses as its builtin base if it compares like
that; one with an `__eq__` of its own is refused, as is everything else: OpenAI's harness would ask such an object
whether it is the right answer.

Text is JSON: None, bool, int, float, str and list are themselves, everything else is an object of one key, its tag. So
`json`'s C parser does nearly all of the work, and a few elements or a million, nested or not, cost about as much as the
same in JSON.
"""

import collections
import datetime
import itertools
import json
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_BYTES = 32 << 20
MAX_DEPTH = 200
MAX_ITERATED = 1_000_000

_SCALARS = {type(None), bool, int, float, str}
_MAX_DECIMAL_BITS = 13_000  # below Python's limit of 4,300 digits for the conversion from and to text
_NUMERIC_DTYPE = re.compile(r"[<>|=][biufcU]\d+")


class NotPlainDataError(Exception):
    """A value that can't cross, or text that no encoder makes."""


def encode(value: object) -> bytes:
    """Returns the text of a value.

    Raises:
      NotPlainDataError: it is not plain data, or too large or too deep.
    """
    try:
        text = _to_text(_plain(value, 0, big_integers=False))
    except ValueError:  # an integer with too many digits
        text = _to_text(_plain(value, 0, big_integers=True))
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > MAX_BYTES:
        raise NotPlainDataError(f"a value of {len(data)} bytes; at most {MAX_BYTES} can cross")
    return data


def decode(data: bytes) -> Any:
    """Returns the value that a text stands for; each time a new one.

    Raises:
      NotPlainDataError: no encoder makes this text.
    """
    limit = sys.get_int_max_str_digits()
    try:
        text = data.decode("utf-8", "surrogatepass")
        try:
            return _from_text(text)
        except ValueError:
            sys.set_int_max_str_digits(0)  # the other side has lifted it
            return _from_text(text)
    except Exception as error:
        raise NotPlainDataError(f"unreadable data ({type(error).__name__})") from None
    finally:
        sys.set_int_max_str_digits(limit)


def _plain(value: Any, depth: int, big_integers: bool) -> Any:
    """Returns what JSON can write."""
    kind = type(value)
    if kind in _SCALARS:
        if kind is int and big_integers and value.bit_length() > _MAX_DECIMAL_BITS:
            return {"x": f"{value:x}"}
        return value
    if depth > MAX_DEPTH:
        raise NotPlainDataError(f"a value nested more than {MAX_DEPTH} deep")

    def listed(items: Any) -> list[Any]:
        items = list(items)
        if not big_integers and set(map(type, items)) <= _SCALARS:
            return items
        return [_plain(item, depth + 1, big_integers) for item in items]

    def pairs(mapping: Any) -> list[Any]:
        return [listed(mapping.keys()), listed(mapping.values())]

    if kind is list:
        return listed(value)
    if kind is tuple:
        return {"t": listed(value)}
    if kind is dict:
        return {"d": pairs(value)}
    tag = _LISTED.get(kind)
    if tag:
        return {tag: listed(value)}
    tag = _MAPPINGS.get(kind)
    if tag:
        return {tag: pairs(value)}
    writer = _WRITERS.get(kind)
    if writer:
        tag, write = writer
        return {tag: listed(write(value))}
    if kind.__module__ == "numpy" and hasattr(value, "dtype"):
        return {"n": _numpy_parts(value)}
    if hasattr(kind, "__next__"):
        items = list(itertools.islice(value, MAX_ITERATED + 1))
        if len(items) > MAX_ITERATED:
            raise NotPlainDataError(f"an iterator over more than {MAX_ITERATED} items")
        return {"i": listed(items)}
    return _plain(_as_base(value, kind), depth, big_integers)


def _as_base(value: Any, kind: type) -> Any:
    """Returns an instance of a subclass as its builtin base, if it compares like that."""
    for base, convert in _BASES.items():
        if isinstance(value, base) and kind.__eq__ is base.__eq__ and kind.__ne__ is base.__ne__:
            plain = convert(value)
            if type(plain) is base:
                return plain
    raise NotPlainDataError(f"an object of class {kind.__name__[:80]!r}, which is not plain data")


def _numpy_parts(value: Any) -> list[Any]:
    dtype = value.dtype.str
    if not _NUMERIC_DTYPE.fullmatch(dtype):
        raise NotPlainDataError(f"a NumPy value of dtype {dtype[:80]!r}; only numbers can cross")
    return [dtype, type(value).__name__ == "ndarray", list(value.shape), value.tobytes().decode("latin-1")]


def _read_numpy(parts: list[Any]) -> Any:
    import numpy  # rarely needed, and the candidate that needs it has had it loaded for both

    dtype, is_array, shape, data = parts
    if not _NUMERIC_DTYPE.fullmatch(dtype):
        raise NotPlainDataError("dtype")
    array = numpy.frombuffer(data.encode("latin-1"), dtype).reshape(shape).copy()
    return array if is_array else array[()]


def _moment_parts(moment: Any) -> list[Any]:
    offset = moment.utcoffset()
    if moment.tzinfo is not None and offset is None:
        raise NotPlainDataError("a time zone without an offset")
    seconds = None if offset is None else offset / datetime.timedelta(seconds=1)
    fields = [moment.hour, moment.minute, moment.second, moment.microsecond]
    if isinstance(moment, datetime.datetime):
        fields = [moment.year, moment.month, moment.day, *fields]
    return [*fields, moment.fold, seconds]


def _read_moment(kind: Callable[..., Any], parts: list[Any]) -> Any:
    *fields, fold, seconds = parts
    zone = None if seconds is None else datetime.timezone(datetime.timedelta(seconds=seconds))
    return kind(*fields, tzinfo=zone, fold=fold)


def _dict(parts: list[Any]) -> dict[Any, Any]:
    keys, values = parts
    return dict(zip(keys, values, strict=True))


# Types of a fixed form, by exact type: (tag, what to write as a list).
_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    complex: ("c", lambda value: (value.real, value.imag)),
    bytes: ("b", lambda value: (value.decode("latin-1"),)),
    bytearray: ("B", lambda value: (value.decode("latin-1"),)),
    range: ("r", lambda value: (value.start, value.stop, value.step)),
    collections.deque: ("q", lambda value: (list(value), value.maxlen)),
    Decimal: ("E", lambda value: (str(value),)),
    Fraction: ("F", lambda value: (value.numerator, value.denominator)),
    datetime.date: ("Y", lambda value: (value.year, value.month, value.day)),
    datetime.time: ("H", _moment_parts),
    datetime.datetime: ("M", _moment_parts),
    datetime.timedelta: ("W", lambda value: (value.days, value.seconds, value.microseconds)),
}
_LISTED: dict[type, str] = {
    set: "s",
    frozenset: "f",
    type({}.keys()): "k",
    type({}.values()): "v",
    type({}.items()): "p",
}
_MAPPINGS: dict[type, str] = {collections.Counter: "C", collections.OrderedDict: "O", collections.defaultdict: "D"}
_BASES: dict[type, Callable[[Any], Any]] = {
    int: int.__pos__,
    float: float.__pos__,
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    list: lambda value: list.__getitem__(value, slice(None)),
    tuple: lambda value: tuple.__getitem__(value, slice(None)),
    dict: lambda value: dict(dict.items(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "t": tuple,
    "d": _dict,
    "s": set,
    "f": frozenset,
    "x": lambda digits: int(digits, 16),
    "i": iter,
    "k": lambda items: dict.fromkeys(items).keys(),
    "v": lambda items: dict(enumerate(items)).values(),
    "p": lambda items: dict(items).items(),
    "C": lambda parts: collections.Counter(_dict(parts)),
    "O": lambda parts: collections.OrderedDict(_dict(parts)),
    "D": lambda parts: collections.defaultdict(None, _dict(parts)),
    "c": lambda parts: complex(*parts),
    "b": lambda parts: parts[0].encode("latin-1"),
    "B": lambda parts: bytearray(parts[0].encode("latin-1")),
    "r": lambda parts: range(*parts),
    "q": lambda parts: collections.deque(*parts),
    "E": lambda parts: Decimal(parts[0]),
    "F": lambda parts: Fraction(*parts),
    "Y": lambda parts: datetime.date(*parts),
    "H": lambda parts: _read_moment(datetime.time, parts),
    "M": lambda parts: _read_moment(datetime.datetime, parts),
    "W": lambda parts: datetime.timedelta(*parts),
    "n": _read_numpy,
}


def _read_object(fields: dict[str, Any]) -> Any:
    ((tag, parts),) = fields.items()
    return _READERS[tag](parts)


_to_text = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
_from_text: Callable[[str], Any] = json.JSONDecoder(object_hook=_read_object).decode
