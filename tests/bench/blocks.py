"""A block of Prometheus' storage, written at once: a day of a large fleet in minutes.

Prometheus takes it as one of its own. The format is described in its sources, tsdb/docs/format: a file of chunks, and
an index of series and of the labels that lead to them. Series share their times, and a few courses of values, which are
encoded once each; everything else is as large as it would be.
"""

from __future__ import annotations

import array
import json
import struct
import sys
import typing as t
from pathlib import Path

import google_crc32c

ULID = "01HZZZZZZZZZZZZZZZZZZZZZZZ"
SAMPLES = 120
"""Samples a chunk, as Prometheus has them."""
_SEGMENT = 512 << 20
_XOR = b"\x01"

Labels = tuple[tuple[str, str], ...]


def _uvarint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _varint(number: int) -> bytes:
    return _uvarint(number << 1 if number >= 0 else (-number << 1) - 1)


def _crc(content: bytes) -> bytes:
    return struct.pack(">I", google_crc32c.value(content))


def _bits(number: int, width: int) -> str:
    return f"{number:0{width}b}"


def _chunk(start: int, interval: int, values: t.Sequence[float]) -> bytes:
    """Encode samples at even distances: Gorilla's XOR of each value with the one before."""
    stream = ["".join(_bits(byte, 8) for byte in _varint(start))]
    before, leading, trailing = struct.unpack(">Q", struct.pack(">d", values[0]))[0], 0xFF, 0
    stream.append(_bits(before, 64))
    for place, value in enumerate(values[1:]):
        # The first distance is said; that it does not change takes a bit.
        stream.append("".join(_bits(byte, 8) for byte in _uvarint(interval)) if place == 0 else "0")
        bits = struct.unpack(">Q", struct.pack(">d", value))[0]
        changed, before = bits ^ before, bits
        if not changed:
            stream.append("0")
            continue
        front, back = min(64 - changed.bit_length(), 31), (changed & -changed).bit_length() - 1
        if leading != 0xFF and front >= leading and back >= trailing:
            stream.append("10" + _bits(changed >> trailing, 64 - leading - trailing))
        else:
            leading, trailing = front, back
            width = 64 - leading - trailing
            stream.append("11" + _bits(leading, 5) + _bits(width & 63, 6) + _bits(changed >> trailing, width))
    text = "".join(stream)
    text += "0" * (-len(text) % 8)
    return struct.pack(">H", len(values)) + int(text, 2).to_bytes(len(text) // 8, "big")


class Course:
    """A course of values over the block's time: its chunks as they are in the file, and what the index says of them."""

    def __init__(self, start: int, interval: int, values: t.Sequence[float]) -> None:
        """Encode values at even distances; times are milliseconds."""
        self.number = len(values)
        pieces = [values[at : at + SAMPLES] for at in range(0, len(values), SAMPLES)]
        blob, offsets, spans = bytearray(), [], []
        for place, piece in enumerate(pieces):
            first = start + place * SAMPLES * interval
            data = _XOR + _chunk(first, interval, piece)
            offsets.append(len(blob))
            spans.append((first, first + (len(piece) - 1) * interval))
            blob += _uvarint(len(data) - 1) + data + _crc(data)
        self.blob = bytes(blob)
        self.head = _uvarint(len(pieces)) + _varint(spans[0][0]) + _uvarint(spans[0][1] - spans[0][0])
        self.chunks = len(pieces)
        tail = bytearray()
        for place in range(1, len(pieces)):
            (_, ended), (begins, ends) = spans[place - 1], spans[place]
            tail += _uvarint(begins - ended) + _uvarint(ends - begins) + _varint(offsets[place] - offsets[place - 1])
        self.tail = bytes(tail)


def write(directory: Path, series: t.Iterable[tuple[Labels, Course]], start: int, end: int) -> int:
    """Write a block with these series, whose labels are sorted by name; return how many there are."""
    block = directory / ULID
    (block / "chunks").mkdir(parents=True)
    ordered = sorted(series, key=lambda one: one[0])
    chunks = _Chunks(block / "chunks")
    _Index(block / "index").write(ordered, chunks)
    chunks.close()
    stats = {
        "numSamples": sum(course.number for _, course in ordered),
        "numSeries": len(ordered),
        "numChunks": sum(course.chunks for _, course in ordered),
    }
    meta = {"ulid": ULID, "minTime": start, "maxTime": end + 1, "version": 1, "stats": stats}
    meta["compaction"] = {"level": 1, "sources": [ULID]}
    (block / "meta.json").write_text(json.dumps(meta))
    return len(ordered)


class _Chunks:
    """The files of chunks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: list[t.BinaryIO] = []
        self._offset = _SEGMENT

    def add(self, course: Course) -> bytes:
        """Write a series' chunks; return what the index says of them."""
        if self._offset + len(course.blob) > _SEGMENT:
            self._files.append((self._directory / f"{len(self._files) + 1:06}").open("wb"))
            self._offset = self._files[-1].write(b"\x85\xbd\x40\xdd\x01\0\0\0")
        reference = (len(self._files) - 1) << 32 | self._offset
        self._offset += self._files[-1].write(course.blob)
        return course.head + _uvarint(reference) + course.tail

    def close(self) -> None:
        """Write what is not written yet."""
        for file in self._files:
            file.close()


class _Index:
    """The index: symbols, series, and for each label the series that have it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, series: list[tuple[Labels, Course]], chunks: _Chunks) -> None:
        """Write all of it, and the chunks on the way."""
        symbols = sorted({word for labels, _ in series for pair in labels for word in pair} | {""})
        number = {symbol: _uvarint(place) for place, symbol in enumerate(symbols)}
        postings: dict[tuple[str, str], array.array[int]] = {("", ""): array.array("I")}
        with self._path.open("wb") as file:
            offset = file.write(b"\xba\xaa\xd7\x00\x02")
            at_symbols = offset
            offset += file.write(self._table(len(symbols), b"".join(map(_text, symbols))))
            at_series = offset
            for labels, course in series:
                offset += file.write(b"\0" * (-offset % 16))
                for pair in (("", ""), *labels):
                    postings.setdefault(pair, array.array("I")).append(offset // 16)
                named = b"".join(number[word] for pair in labels for word in pair)
                entry = _uvarint(len(labels)) + named + chunks.add(course)
                offset += file.write(_uvarint(len(entry)) + entry + _crc(entry))
            at_postings, table = offset, bytearray()
            for (name, value), found in sorted(postings.items()):
                table += b"\x02" + _text(name) + _text(value) + _uvarint(offset)
                if sys.byteorder == "little":
                    found.byteswap()
                offset += file.write(self._table(len(found), found.tobytes()))
            at_table = offset
            file.write(self._table(len(postings), bytes(table)))
            contents = struct.pack(">6Q", at_symbols, at_series, 0, 0, at_postings, at_table)
            file.write(contents + _crc(contents))

    @staticmethod
    def _table(number: int, entries: bytes) -> bytes:
        content = struct.pack(">I", number) + entries
        return struct.pack(">I", len(content)) + content + _crc(content)


def _text(word: str) -> bytes:
    encoded = word.encode()
    return _uvarint(len(encoded)) + encoded


def meta(directory: Path) -> dict[str, t.Any]:
    """Return what a block says of itself."""
    found: dict[str, t.Any] = json.loads((directory / ULID / "meta.json").read_text())
    return found
