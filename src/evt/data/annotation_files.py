"""json, csv and XML files of annotations, which come from anywhere: read whole, or refused in a sentence.

What the parsers let pass, or end in errors of their own, is refused here with its place in the file: what is not
UTF-8, nesting without end, numbers beyond all bounds, keys or columns that are there twice, halves of surrogates,
rows of other lengths than the header's, entities.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd

from evt.errors import DataError

DIGITS = 308
"""The most digits of a whole number; with more it is beyond the largest float."""

# Each escape in turn, so that the backslash of one is not taken for the beginning of another.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|(?P<nul>u0000)|.)",
    re.DOTALL,
)
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 300
_REPR.maxlong = 40


class _RefusedError(ValueError):
    """Something that json's parser would take; `literal` is as it stands in the file."""

    def __init__(self, literal: str, message: str) -> None:
        super().__init__(message)
        self.literal = literal


def shown(value: object) -> str:
    """A value for a message: shortened where it is long or nested."""
    return _REPR.repr(value)


def read_bytes(path: str | Path, needed: str) -> bytes:
    """What a file holds.

    Args:
        path: the file.
        needed: what it must be, in words, for messages.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation file; {needed} is needed") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {needed} is needed") from error


def read_text(path: str | Path, needed: str) -> str:
    """The text of a file in UTF-8, with or without the mark that Windows puts first.

    Raises:
        DataError: the file cannot be read, or is in another encoding.
    """
    content = read_bytes(path, needed)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); {needed} in UTF-8 is needed"
        ) from error


def read_json(path: str | Path, needed: str) -> Any:
    """Read a json file.

    Args:
        path: the file.
        needed: what it must be, in words, for messages.

    Raises:
        DataError: it cannot be read, is no whole json, or holds what is no good value: NaN or an infinity, a number
            of more than `DIGITS` digits or beyond the floats, an object with a key twice, half a surrogate pair, NUL,
            or nesting without end.
    """
    text = read_text(path, needed)
    if r"\u" in text:
        for match in _ESCAPE.finditer(text):
            if match.lastgroup:
                what = "a character NUL" if match.lastgroup == "nul" else f"half a character, {match[0]}"
                raise DataError(f"{path}, line {_line(text, match.start())}: {what}; {needed} is needed")
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_constant,
        )
    except RecursionError:
        raise DataError(f"{path}: not whole json (nested too deeply); {needed} is needed") from None
    except _RefusedError as error:
        found = error.literal and re.search(rf"(?<![\w\"-]){re.escape(error.literal)}(?!\w)", text)
        where = f"{path}, line {_line(text, found.start())}" if found else str(path)
        raise DataError(f"{where}: {error}; {needed} is needed") from None
    except ValueError as error:
        raise DataError(f"{path}: not whole json ({error}); {needed} is needed") from error


def read_csv(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read columns of a csv file as text; empty lines are passed over.

    Returns:
        A table whose index is the line that each row begins on, the header's being 1.

    Raises:
        DataError: the file cannot be read, is no csv, has no rows, lacks a column or has it twice, or a row has
            other cells than the header.
    """
    needed = "a csv file"
    text = read_text(path, needed)
    if (nul := text.find("\0")) >= 0:
        raise DataError(f"{path}, line {_line(text, nul)}: a character NUL; {needed} is needed")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: dict[int, list[str]] = {}
    line = 1
    try:
        for row in reader:
            if row:
                rows[line] = row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}: not a csv file (from line {line} on: {error}); {needed} is needed"
        ) from error
    if not rows:
        raise DataError(f"{path}: not a csv file (it is empty); {needed} is needed")
    header = rows.pop(min(rows))
    for column in columns:
        if column not in header:
            lacking = ", ".join(x for x in columns if x not in header)
            raise DataError(f"{path}: has no column {lacking}; its columns are {', '.join(header)}")
        if header.count(column) > 1:
            raise DataError(
                f"{path}: has the column {column} {header.count(column)} times; it must be there once"
            )
    if not rows:
        raise DataError(f"{path}: has no rows; at least 1 is needed")
    for line, row in rows.items():
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {line}: a row of {len(row)} cells; the header has {len(header)}, and so must each row"
            )
    table = pd.DataFrame(list(rows.values()), index=list(rows), columns=header, dtype=str)
    return table[list(columns)]


def read_xml(path: str | Path, needed: str) -> ElementTree.Element:
    """Read an XML file without a document type, so that nothing in it stands for more than it shows.

    Raises:
        DataError: it cannot be read, is no whole XML, or has a document type.
    """
    content = read_bytes(path, needed)
    if b"<!DOCTYPE" in content.replace(b"\0", b""):  # in UTF-16, too
        raise DataError(
            f"{path}: has a document type, whose entities are not read; {needed} without is needed"
        )
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the last two: the encoding
        raise DataError(f"{path}: not whole XML ({error}); {needed} is needed") from error


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _RefusedError(
            "",
            f"the key {shown(twice)} is there twice in the object {shown(entries)}; each may be there once",
        )
    return entries


def _whole(literal: str) -> int:
    if len(literal.lstrip("-")) > DIGITS:
        raise _RefusedError(literal, f"a number of {len(literal.lstrip('-'))} digits, {literal[:20]}...")
    return int(literal)


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise _RefusedError(literal, f"a number that is too large, {shown(literal)}")
    return number


def _constant(literal: str) -> float:
    raise _RefusedError(literal, f"{literal}, which is no number in json")
