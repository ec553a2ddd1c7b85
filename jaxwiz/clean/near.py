"""Finds near duplicates among millions of signatures: locality-sensitive hashing by sorting, with its index in files.

Signatures are cut into bands of a few numbers; rows that share a band are candidates (MinHash LSH). Each band of all
rows is sorted, which gives the groups that share it. Rows then go by in their order, each compared with the earlier
kept rows of its groups by all its numbers, so the threshold is one of estimated similarity, not of luck. A row stays
unless an earlier row that stays is so alike: chains of small changes don't swallow everything.

    disk    1,024 bytes a row for signatures (256 x 4), 168 for groups (42 bands x 4)
    memory  80 bytes a row while bands are sorted; then 4 bytes for each band that a row shares with another
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxwiz.clean.config import NearConfig

RECALL = 0.99  # of pairs that are just as alike as the threshold
ROWS_AT_ONCE = 8192
BANDS_AT_ONCE = 6  # hashed in one reading of the signatures
MOST_COMPARED = 256  # candidates of a row: those that share most bands
NONE = -1


@dataclasses.dataclass(frozen=True)
class Near:
    """For each row, which kept row it repeats.

    Attributes:
      match: int32 [rows], number of the earlier row, or NONE.
      similarity: float32 [rows], of the two; 0 where there is none.
    """

    match: np.ndarray
    similarity: np.ndarray


def banding(config: NearConfig) -> tuple[int, int]:
    """Returns (bands, numbers in each): the widest bands with which a pair at the threshold is met with 99%."""
    for width in range(config.permutations, 1, -1):
        bands = config.permutations // width
        if 1 - (1 - config.threshold**width) ** bands >= RECALL:
            return bands, width
    return config.permutations, 1


def find_near(signatures: Path, rows: int, left_out: np.ndarray, config: NearConfig, work: Path) -> Near:
    """Returns which rows nearly repeat an earlier one.

    Args:
      signatures: file of uint32 [rows, permutations].
      rows: how many there are.
      left_out: bool [rows], those that are out of the data already and are compared with none.
      config: when rows are alike.
      work: folder for the groups' file, which is removed.
    """
    groups = work / "groups.i32"
    try:
        with open(signatures, "rb") as source, open(groups, "w+b") as target:
            sizes = _write_groups(source, rows, left_out, config, target)
            return _sweep(source, rows, sizes, config, target)
    finally:
        groups.unlink(missing_ok=True)


def _write_groups(
    source: BinaryIO, rows: int, left_out: np.ndarray, config: NearConfig, target: BinaryIO
) -> np.ndarray:
    """Writes int32 [bands, rows], each row's group in each band, NONE if it is alone; returns the groups' sizes."""
    bands, width = banding(config)
    sizes = [np.empty(0, np.int64)]
    count = 0
    for first_band in range(0, bands, BANDS_AT_ONCE):
        together = range(first_band, min(bands, first_band + BANDS_AT_ONCE))
        hashes = np.empty((len(together), rows), np.uint64)
        for first, block in _signature_blocks(source, rows, config):
            for column, band in enumerate(together):
                hashes[column, first : first + len(block)] = _band_hashes(block, band * width, width)
        for of_rows in hashes:
            groups, of_band = _groups(of_rows, left_out)
            groups[groups != NONE] += count
            count += len(of_band)
            sizes.append(of_band)
            target.write(groups.tobytes())
    target.flush()
    return np.concatenate(sizes)


def _band_hashes(block: np.ndarray, start: int, width: int) -> np.ndarray:
    """Returns uint64 [rows], a number for each row's band; different bands have different ones but for accidents."""
    hashes = np.zeros(len(block), np.uint64)
    for column in block[:, start : start + width].T:
        hashes = (hashes ^ column) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    return hashes


def _groups(hashes: np.ndarray, left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the group of each row by equal hashes, int32, NONE if it is alone; and the groups' sizes."""
    members = np.flatnonzero(~left_out)
    order = members[np.argsort(hashes[members], kind="stable")]
    changes = np.flatnonzero(np.diff(hashes[order])) + 1
    begins = np.concatenate([np.zeros(min(1, len(order)), np.int64), changes])
    sizes = np.diff(begins, append=len(order))
    shared = sizes > 1
    names = np.where(shared, np.cumsum(shared) - 1, NONE).astype(np.int32)
    groups = np.full(len(hashes), NONE, np.int32)
    groups[order] = np.repeat(names, sizes)
    return groups, sizes[shared]


def _sweep(source: BinaryIO, rows: int, sizes: np.ndarray, config: NearConfig, groups: BinaryIO) -> Near:
    """Returns the matches, found row by row among the kept rows of each group."""
    match, similarity = np.full(rows, NONE, np.int32), np.zeros(rows, np.float32)
    begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    kept = np.empty(begins[-1], np.int32)  # of each group, in the order of rows
    filled = np.zeros(len(sizes), np.int32)
    bands, _ = banding(config)
    for first, block in _signature_blocks(source, rows, config):
        of_rows = _group_columns(groups, rows, bands, first, len(block))
        for offset in np.flatnonzero((of_rows != NONE).any(axis=1)):
            own = of_rows[offset]
            own = own[own != NONE]
            candidates = _candidates(own, begins, filled, kept)
            if len(candidates):
                alike = (_signatures(source, candidates, config) == block[offset]).mean(axis=1)
                best = int(np.argmax(alike))
                if alike[best] >= config.threshold:
                    match[first + offset], similarity[first + offset] = candidates[best], alike[best]
                    continue
            kept[begins[own] + filled[own]] = first + offset
            filled[own] += 1
    return Near(match, similarity)


def _candidates(own: np.ndarray, begins: np.ndarray, filled: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Returns the kept rows of some groups in their order; of very many those that share most bands."""
    found = [kept[begins[group] : begins[group] + filled[group]] for group in own]
    rows, shared = np.unique(np.concatenate(found), return_counts=True)
    if len(rows) > MOST_COMPARED:
        rows = np.sort(rows[np.argsort(-shared, kind="stable")[:MOST_COMPARED]])
    return rows


def _signature_blocks(source: BinaryIO, rows: int, config: NearConfig) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, uint32 [some rows, permutations]), read and not mapped: mapped pages would count as memory."""
    for first in range(0, rows, ROWS_AT_ONCE):
        size = 4 * config.permutations * min(ROWS_AT_ONCE, rows - first)
        data = os.pread(source.fileno(), size, 4 * config.permutations * first)
        yield first, np.frombuffer(data, np.uint32).reshape(-1, config.permutations)


def _signatures(source: BinaryIO, rows: np.ndarray, config: NearConfig) -> np.ndarray:
    size = 4 * config.permutations
    data = b"".join(os.pread(source.fileno(), size, size * int(row)) for row in rows)
    return np.frombuffer(data, np.uint32).reshape(-1, config.permutations)


def _group_columns(groups: BinaryIO, rows: int, bands: int, first: int, count: int) -> np.ndarray:
    """Returns int32 [count, bands], the groups of some rows."""
    columns = [os.pread(groups.fileno(), 4 * count, 4 * (band * rows + first)) for band in range(bands)]
    return np.stack([np.frombuffer(column, np.int32) for column in columns], axis=1)
