"""The report: what the tables in a folder say, put into one page that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from omegaconf import OmegaConf
from plotly.offline import get_plotlyjs

import evt
from evt.errors import DataError
from evt.page.answer import answers
from evt.page.clips import clip_of
from evt.page.figures import Panel, panel
from evt.page.made import Made, commits, made
from evt.page.tables import Column, Table, read_table, shown
from evt.tables.claims import counted, read_claims

with (resources.files("evt.page") / "page.yaml").open(encoding="utf-8") as _file:
    SAID: Any = OmegaConf.to_container(OmegaConf.load(_file))


def page_of(folder: Path, runs: Sequence[Path] = (), n_frames: int = 60) -> str:
    """All results in a folder as one HTML page.

    Args:
        folder: of the tables.
        runs: to be looked at frame by frame, see `clip_of`.
        n_frames: at most so many of each.

    Raises:
        DataError: a table is missing or damaged; the message says which, and what writes it; or see `clip_of`.
        ValueError: a claim cannot be judged by the tables.
    """
    names = sorted(path.stem for path in folder.glob("*.csv"))
    tables = {
        name: read_table(folder / f"{name}.csv")
        for name in names
        if not name.endswith("_covariance")
        and "_quick" not in name  # the one is of claims, the other of few frames
    }
    if not tables:
        raise DataError(f"{folder}: has no tables (*.csv); python -m evt.reproduce writes them")
    answered = answers(SAID, tables)
    try:
        claims = read_claims(folder)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: there is no such table; make reproduce-mini writes it") from error
    clips = [clip_of(path, n_frames) for path in runs]
    environment = Environment(
        loader=PackageLoader("evt.page", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["code"] = code
    return environment.get_template("report.html.j2").render(
        version=evt.__version__,
        answers=answered,
        figures=list(_figures(tables)),
        claims=claims,
        counts=counted(claims),
        clips=clips,
        groups=list(_groups(tables, commits(folder))),
        style=Markup(_text("report.css")),
        script=Markup(_text("report.js")),
        plotly=Markup(get_plotlyjs()),
    )


def code(text: str) -> Markup:
    """Text in which `names` are set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _figures(tables: Mapping[str, Table]) -> Iterator[tuple[str, Sequence[Panel]]]:
    for figure in SAID["figures"]:
        panels = [
            found
            for said in figure["panels"]
            if said["table"] in tables and (found := panel(tables[said["table"]], said, SAID["axes"]))
        ]
        if panels:
            yield figure["title"], panels


def _groups(
    tables: Mapping[str, Table], commit: Mapping[str, str]
) -> Iterator[tuple[str, list[tuple[Table, list[Column], Made]]]]:
    named = {name for group in SAID["groups"] for name in group["tables"]}
    others = {"title": "More tables", "data": None, "tables": dict.fromkeys(sorted(tables.keys() - named))}
    for group in (*SAID["groups"], others):
        found = [
            (
                tables[name],
                shown(tables[name], SAID["paper"]),
                made(tables[name], commit.get(f"{name}.csv", "in no commit"), group),
            )
            for name in group["tables"]
            if name in tables
        ]
        if found:
            yield group["title"], found


def _text(name: str) -> str:
    return (resources.files("evt.page") / name).read_text(encoding="utf-8")
