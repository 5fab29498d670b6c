"""Figures of the tables, by plotly: a curve for each family, its values on hover, its intervals as bars."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, isnan, log10
from typing import Any

import plotly.graph_objects as go

from evt.page.tables import ACCURACIES, Row, Table, digits_of

COLOURS = (
    "#2b7bba",
    "#d1650a",
    "#25927a",
    "#b8559b",
    "#9a7b00",
    "#7a68c9",
    "#c24a4a",
    "#5f7d2a",
    "#0f8aa6",
    "#a3654a",
)
"""Of curves: each stands out from white and from black by at least 3 to 1."""
SYMBOLS = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "x",
    "star",
    "cross",
    "triangle-down",
    "pentagon",
    "hexagon",
)
DASHES = ("solid", "dash", "dot", "dashdot")
LONG, LINE = 18, 20
"""Names of curves of more letters stand one to a line, of so many pixels, and others two."""
GREY = "#808080"
"""Of the dense model and of frame skipping, which all others are held against."""

LAYOUT = {
    "hovermode": "closest",
    "dragmode": False,
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"size": 12},
}
"""Of all charts: on the page's own ground, and still."""


@dataclass(frozen=True)
class Panel:
    """A chart: its title, the table with its values, plotly's figure as JSON, and its height in pixels."""

    title: str
    table: str
    json: str
    height: int


def panel(table: Table, said: Mapping[str, Any], axes: Mapping[str, str]) -> Panel | None:
    """A panel of page.yaml; None where the table has nothing to draw in it."""
    wanted = said.get("of", {})
    rows = [
        row
        for row in table.rows
        if all(table.cells[name][row.place] in ("", x) for name, x in wanted.items())
    ]
    curves = list(_over(table, rows, said["over"]) if "over" in said else _along(table, rows, said))
    if not curves:
        return None
    figure = go.Figure(layout={"template": None})
    for i, curve in enumerate(sorted(curves, key=_plain)):
        colour = GREY if _plain(curve) else COLOURS[i % len(COLOURS)]
        figure.add_scatter(
            **curve,
            mode="lines+markers",
            hoverinfo="text",
            marker={"color": colour, "symbol": SYMBOLS[i % len(SYMBOLS)], "size": 7},
            line={"color": colour, "width": 1.6, "dash": DASHES[i // len(COLOURS) % len(DASHES)]},
        )
    x = said.get("x", "frames")
    # Ratios and frames are looked at by how many times more they are.
    scale = {"type": "log", "dtick": log10(2)} if x in ("op_ratio", "frames") else {}
    figure.update_xaxes(title=axes.get(x, x), fixedrange=True, zeroline=False, **scale)
    figure.update_yaxes(fixedrange=True, zeroline=False, automargin=True)
    columns = 1 if max(len(curve["name"]) for curve in curves) > LONG else 2
    below = 52 + LINE * ceil(len(curves) / columns)
    height = 270 + below
    figure.update_layout(
        height=height,
        margin={"l": 44, "r": 10, "t": 10, "b": below, "autoexpand": False},
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "maxheight": below,
            "entrywidth": 1 / columns,
            "entrywidthmode": "fraction",
            "font": {"size": 11},
        },
        **LAYOUT,
    )
    return Panel(said["title"], table.name, in_script(figure.to_json()), height)


def in_script(json: str | None) -> str:
    """JSON as it can stand in a script of the page, which no text in it may end."""
    return str(json).replace("<", "\\u003c")


def _plain(curve: Mapping[str, Any]) -> bool:
    """Whether a curve is of the dense model or of frame skipping; these come last."""
    return bool(re.match(r"(base|skip)\b", curve["name"]))


def _along(table: Table, rows: list[Row], said: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """A curve for each family."""
    x, y = said["x"], said["y"]
    if not {x, y} <= table.numbers.keys():
        return
    halves = table.numbers.get("interval" if y in ACCURACIES else f"{y}_interval")
    curves: dict[str, list[int]] = {}
    for row in rows:
        if not isnan(table.numbers[y][row.place]) and not isnan(table.numbers[x][row.place]):
            curves.setdefault(row.curve, []).append(row.place)
    for name, places in curves.items():
        places.sort(key=table.numbers[x].__getitem__)
        yield _curve(
            name,
            [table.numbers[x][i] for i in places],
            [table.numbers[y][i] for i in places],
            [halves[i] for i in places] if halves else None,
            [f"{name}<br>{table.rows[i].setting or 'all tokens'}<br>{x}" for i in places],
            digits_of(table.numbers[y]),
        )


def _over(table: Table, rows: list[Row], prefix: str) -> Iterator[dict[str, Any]]:
    """A curve for each row, over the columns that end in a number."""
    columns = [name for name in table.numbers if re.fullmatch(rf"{prefix}\d+", name)]
    for row in rows:
        name = f"{row.variant}, every = {row.settings['every']}" if "every" in row.settings else row.variant
        yield _curve(
            name,
            [float(column.removeprefix(prefix)) for column in columns],
            [table.numbers[column][row.place] for column in columns],
            [table.numbers[f"{column}_interval"][row.place] for column in columns],
            [f"{name}<br>{row.setting or 'all tokens'}<br>frames" for _ in columns],
            3,
        )


def _curve(
    name: str, x: list[float], y: list[float], halves: list[float] | None, texts: list[str], digits: int
) -> dict[str, Any]:
    said = [f" ±{half:.{digits}f}" for half in halves] if halves else [""] * len(x)
    hover = [
        f"{text}: {a:.4g}<br><b>{b:.{digits}f}{half}</b>"
        for text, a, b, half in zip(texts, x, y, said, strict=True)
    ]
    curve: dict[str, Any] = {"name": name, "x": x, "y": y, "hovertext": hover}
    if halves:
        curve["error_y"] = {"type": "data", "array": halves, "thickness": 0.8, "width": 2}
    return curve
