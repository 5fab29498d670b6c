"""python -m evt.claims: what the small tables say of the paper's claims, one by one.

Reads results/table_{1,c,d,drift}_mini.csv and the covariances beside them, as `python -m evt.reproduce`
leaves them, and writes results/claims.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evt.cli import fail, parser_of
from evt.files import sentence
from evt.interrupt import imports_are_done
from evt.tables.claims import write_claims


def main(arguments: Sequence[str] | None = None) -> None:
    """Write what the command line says."""
    imports_are_done()
    parser = parser_of("claims", __doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results"), help="of the tables")
    folder = parser.parse_args(arguments).folder
    try:
        path = write_claims(folder)
    except FileNotFoundError as error:
        fail(f"{error.filename}: there is no such table; make reproduce-mini writes it")
    except (OSError, ValueError) as error:
        fail(sentence(error))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
