"""python -m evt.page: all results in one HTML file, which opens without a network.

Reads the tables in a folder, as `python -m evt.reproduce` leaves them, and says first what they answer: when this
helps, with what setting, against frame skipping and the rivals. Then figures, claims, runs with trace=true frame by
frame, all tables, and how each was made. Needs the extra `report`: pip install -e '.[report]'.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evt.cli import fail, parser_of
from evt.files import check_writable, sentence, write
from evt.interrupt import imports_are_done


def main(arguments: Sequence[str] | None = None) -> None:
    """Write what the command line says."""
    imports_are_done()
    parser = parser_of("page", __doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results"), help="of the tables")
    parser.add_argument(
        "--out", type=Path, help="the file; report.html in the folder of the tables if not given"
    )
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        type=Path,
        help="a folder that evt.run left with trace=true, or one trace in it, to be looked at; can be repeated",
    )
    parser.add_argument(
        "--frames", type=int, default=60, help="how many frames of each such video, at most; 60 if not given"
    )
    given = parser.parse_args(arguments)
    out = given.out or given.folder / "report.html"
    try:
        from evt.page.build import page_of
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed; pip install -e '.[report]' installs what the report needs")
    try:
        if not given.folder.is_dir():
            fail(f"{given.folder}: there is no such folder; it is to be that of the tables, as results")
        if given.frames < 1:
            fail(f"--frames is {given.frames}; it must be at least 1")
        check_writable(out)
        content = page_of(given.folder, given.run, given.frames)
        write(out, content)
    except (OSError, ValueError) as error:
        fail(sentence(error))
    print(f"written to {out}, {len(content.encode()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
