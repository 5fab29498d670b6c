"""Annotations come from anywhere: what parsers let pass or stumble over ends in one sentence with file and place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from evt.data.annotation_files import read_csv, read_json, read_xml, shown
from evt.data.epic_kitchens import EpicKitchens
from evt.data.kinetics import Kinetics
from evt.data.something import SomethingSomething
from evt.data.vid import VID
from evt.data.vid_annotations import labels_of_tree, read_annotation
from evt.errors import DataError
from tests.data.vid_tree import CAR, coco_json, write_tree, write_xml

Reader = Callable[[Path], object]


def refusal(read: Reader, path: Path, content: bytes) -> str:
    """What is said; one line, short, that names the file and can be printed."""
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    assert len(said.encode()) < len(str(path)) + 600
    return said.removeprefix(str(path))


BAD_JSON = {
    "deep lists": (b"[" * 200_000, "not whole json (nested too deeply)"),
    "deep objects": (b'{"a":' * 200_000, "not whole json (nested too deeply)"),
    "half a character": (b'[\n"a\\ud800b"]', r", line 2: half a character, \ud800"),
    "the other half": (b'["\\uDFFF"]', r", line 1: half a character, \uDFFF"),
    "halves the wrong way round": (b'["\\udc00\\ud800"]', "half a character"),
    "a NUL": (b'["a\\u0000"]', ", line 1: a character NUL"),
    "digits": (
        b"[1,\n\n2, " + b"7" * 400 + b"]",
        ", line 3: a number of 400 digits, 77777777777777777777...",
    ),
    "a negative of many digits": (b"[-" + b"7" * 400 + b"]", ", line 1: a number of 400 digits"),
    "more digits than Python reads": (b"[" + b"7" * 5000 + b"]", "a number of 5000 digits"),
    "digits with a point": (b"[1,\n" + b"7" * 400 + b".5]", ", line 2: a number that is too large"),
    "an exponent": (b"[-1e999]", ", line 1: a number that is too large, '-1e999'"),
    "NaN": (b'["NaN",\n NaN]', ", line 2: NaN, which is no number in json"),
    "an infinity": (b"[\n-Infinity]", ", line 2: -Infinity, which is no number in json"),
    "a key twice": (
        b'[{"a": 1, "b": 2, "a": 3}]',
        "the key 'a' is there twice in the object {'a': 3, 'b': 2}",
    ),
    "an encoding": (b'["a",\n"\xe9"]', ", line 2: not UTF-8"),
    "UTF-16": ('["a"]'.encode("utf-16"), ", line 1: not UTF-8"),
    "cut": (b'{"a": [1, 2', "not whole json (Expecting ',' delimiter: line 1 column 12 (char 11))"),
    "empty": (b"", "not whole json (Expecting value"),
}


@pytest.mark.parametrize(("content", "message"), BAD_JSON.values(), ids=BAD_JSON)
def test_a_bad_json_is_refused_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refusal(lambda path: read_json(path, "a json file"), tmp_path / "a.json", content)


def test_a_good_json_is_read_as_it_is(tmp_path: Path) -> None:
    """Escaped backslashes before what looks like an escape, pairs of surrogates, and a mark of the encoding."""
    path = tmp_path / "a.json"
    text = (
        '{"a": ["\\\\ud800", "\\ud83d\\ude00", "\\\\\\\\u0000", "é\\u00e9"], "b": [1, -2.5e3, 1e-400, '
        + "9" * 308
    )
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"]}")
    expected = {"a": ["\\ud800", "\U0001f600", "\\\\u0000", "éé"], "b": [1, -2500.0, 0.0, 10**308 - 1]}
    assert read_json(path, "a json file") == expected == json.loads(text + "]}")


@pytest.mark.parametrize(
    "name", ["digits", "half a character", "deep lists", "NaN", "a key twice", "an encoding"]
)
def test_every_data_set_with_a_json_refuses_it(tmp_path: Path, name: str) -> None:
    content, _ = BAD_JSON[name]
    root = write_tree(tmp_path / "vid")
    labels = tmp_path / "labels.json"
    labels.write_text("{}")
    refusal(lambda path: VID(root, annotations=path), tmp_path / "val.json", content)
    refusal(lambda path: SomethingSomething(labels, path, tmp_path), tmp_path / "l.json", content)
    labels.write_text('{"a": 0}')
    refusal(lambda path: SomethingSomething(path, labels, tmp_path), tmp_path / "v.json", content)


@pytest.mark.parametrize("key", ["id", "file_name", "video_id", "width"])
def test_what_is_nested_where_a_value_is_due_is_shown_shortened(tmp_path: Path, key: str) -> None:
    """Deep enough for Python to fail in showing it, and not for reading it."""
    content = json.dumps(coco_json())
    bad = json.dumps({key: "HERE"}).replace('"HERE"', "[" * 900 + "]" * 900)[1:-1]
    content = content.replace(f'"{key}": ' + json.dumps(coco_json()["images"][0][key]), bad, 1)
    root = write_tree(tmp_path / "vid")
    refusal(lambda path: VID(root, annotations=path), tmp_path / "val.json", content.encode())


def test_numbers_of_labels_in_thousands_of_digits_are_refused(tmp_path: Path) -> None:
    videos = tmp_path / "v.json"
    videos.write_text('[{"id": "1", "template": "a"}]')
    content = json.dumps({"a": "0" * 5000}).encode()
    said = refusal(lambda path: SomethingSomething(videos, path, tmp_path), tmp_path / "l.json", content)
    assert "'a' has the number '0000" in said


BAD_CSV = {
    "a NUL": (b"a,b\n1,2\n\x003,4\n", ", line 3: a character NUL"),
    "an open quote": (b'a,b\n1,2\n3,"4\n5,6\n', "(from line 3 on: unexpected end of data)"),
    "text behind a quote": (b'a,b\n1,"2"x\n', "(from line 2 on: ',' expected after '\"')"),
    "a long row": (b"a,b\n1,2\n3,4,5\n", ", line 3: a row of 3 cells; the header has 2"),
    "a short row": (b'a,b\n\n"1\n1",2\n3\n', ", line 5: a row of 1 cells; the header has 2"),
    "an encoding": (b"a,b\n1,2\n\xff,4\n", ", line 3: not UTF-8"),
    "a column twice": (b"a,b,a\n1,2,3\n", "has the column a 2 times"),
    "a huge cell": (b"a,b\n1," + b"2" * 200_000, "(from line 2 on: field larger than field limit"),
    "empty": (b"\n\n", "not a csv file (it is empty)"),
    "no rows": (b"a,b\n", "has no rows"),
    "no column": (b"a,c\n1,2", "has no column b; its columns are a, c"),
}


@pytest.mark.parametrize(("content", "message"), BAD_CSV.values(), ids=BAD_CSV)
def test_a_bad_csv_is_refused_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refusal(lambda path: read_csv(path, ["a", "b"]), tmp_path / "a.csv", content)


def test_a_good_csv_is_read_as_it_is(tmp_path: Path) -> None:
    """With the mark that Excel writes, Windows' line ends, an empty line, and a cell of two lines."""
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffa,é,b\r\n1,x,"2, ""y"""\r\n\r\n"3\r\n3",NA,\r\n5,,6\r\n'.encode())
    table = read_csv(path, ["b", "é", "a"])
    assert list(table.itertuples(name=None)) == [
        (2, '2, "y"', "x", "1"),
        (4, "", "NA", "3\r\n3"),
        (6, "6", "", "5"),
    ]


EPIC = "narration_id,video_id,start_timestamp,stop_timestamp,verb_class\n"
KINETICS = "label,youtube_id,time_start,time_end,split\n"


@pytest.mark.parametrize(
    "row",
    [
        "a,b,00:00:01.00,00:00:02.00," + "9" * 5000,
        "a,b,00:00:01.00,00:00:02.00," + "9" * 400,
        f"a,b,{'9' * 5000}:00:01.00,00:00:02.00,1",
        f"a,b,00:00:01.{'9' * 400},00:00:01.{'9' * 400}x,1",
        'a,b,"00:00:01.00,00:00:02.00,1',
    ],
)
def test_a_bad_csv_of_epic_kitchens_ends_in_a_sentence(tmp_path: Path, row: str) -> None:
    content = f"{EPIC}{row}\n".encode()
    assert "line 2" in refusal(
        lambda _: EpicKitchens(tmp_path), tmp_path / "EPIC_100_validation.csv", content
    )


@pytest.mark.parametrize("row", ["a,b,nan,2,val", f"a,b,{'9' * 400},2,val", "a,b,0,inf,val", "a,b,0,1"])
def test_a_bad_csv_of_kinetics_ends_in_a_sentence(tmp_path: Path, row: str) -> None:
    content = f"{KINETICS}\n{row}\n".encode()  # the row is in line 3, behind an empty one
    assert "line 3" in refusal(lambda path: Kinetics(path, tmp_path), tmp_path / "val.csv", content)


BAD_XML = {
    "entities that grow": (
        b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><annotation>&b;</annotation>',
        "has a document type",
    ),
    "entities in UTF-16": (
        '<!DOCTYPE x [<!ENTITY a "ha">]><annotation>&a;</annotation>'.encode("utf-16"),
        "has a document type",
    ),
    "a file of this machine": (
        b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><annotation>&a;</annotation>',
        "has a document type",
    ),
    "half a character": (
        b"<annotation>&#xD800;</annotation>",
        "not whole XML (reference to invalid character",
    ),
    "a NUL": (b"<annotation>\x00</annotation>", "not whole XML (not well-formed (invalid token): line 1"),
    "an encoding": (b"<annotation>\xff</annotation>", "not whole XML"),
    "cut": (b"<annotation><size>", "not whole XML (no element found: line 1"),
}


@pytest.mark.parametrize(("content", "message"), BAD_XML.values(), ids=BAD_XML)
def test_a_bad_xml_is_refused_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refusal(lambda path: read_xml(path, "XML"), tmp_path / "a.xml", content)
    assert message in refusal(read_annotation, tmp_path / "a.xml", content)


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "1e999", "nan", "-inf", "1_0.x"])
@pytest.mark.parametrize("place", ["<width>64<", "<xmin>1<", "<ymax>9<"])
def test_numbers_of_an_xml_that_are_none_are_refused(tmp_path: Path, number: str, place: str) -> None:
    path = tmp_path / "000000.xml"
    write_xml(path, [(CAR, 1, 2, 9, 9)])
    tag = place[: place.index(">") + 1]
    content = path.read_text().replace(place, f"{tag}{number}<").encode()
    assert "it must be a number" in refusal(read_annotation, path, content)


def test_nesting_in_an_xml_ends_in_a_sentence(tmp_path: Path) -> None:
    content = b"<annotation>" + b"<a>" * 200_000 + b"</a>" * 200_000 + b"</annotation>"
    assert "size/width is None; it must be a number" in refusal(read_annotation, tmp_path / "a.xml", content)


def test_names_of_classes_in_another_encoding_are_refused(tmp_path: Path) -> None:
    assert ", line 2: not UTF-8" in refusal(
        lambda _: labels_of_tree(tmp_path), tmp_path / "classes.txt", b"cat\nb\xe9te\n"
    )


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    for read in (
        lambda path: read_json(path, "a"),
        lambda path: read_csv(path, []),
        lambda path: read_xml(path, "a"),
    ):
        with pytest.raises(DataError, match=r"none: no such annotation file; .* is needed"):
            read(tmp_path / "none")
        with pytest.raises(DataError, match=r"cannot be read \(Is a directory\); .* is needed"):
            read(tmp_path)


def test_values_are_shown_short() -> None:
    assert shown("val/ILSVRC2015_val_00000000/000001.JPEG") == "'val/ILSVRC2015_val_00000000/000001.JPEG'"
    assert shown(7) == "7"
    assert len(shown("a" * 10_000)) < 400
