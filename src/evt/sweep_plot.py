"""The plot of a sweep: accuracy or error over operations, by matplotlib where that is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from evt.files import replacing

COSTS = {"gflops": "GFlops a frame", "tflops": "TFlops a clip"}
"""Figures that operations are told by, and what their axis is called."""

MEASURES = {
    "map50": "mAP50, %",
    "top1": "top-1, %",
    "jf": "J&F, %",
    "later_relative_l2_error": "relative L2 error of later frames",
    "relative_l2_error": "relative L2 error",
}
"""The same of what they are spent on; the first that a sweep has is drawn."""

STYLES = ("o-", "s--", "^-.", "v:", "D-", "P--", "X-.", "*:")
"""Of one curve after the other; in black and white, too, they can be told apart."""


def plot(frame: pd.DataFrame, varying: Sequence[str], out: Path) -> bool:
    """Draw the points of a sweep, with a curve for those whose settings differ in numbers alone.

    Args:
        frame: its table.
        varying: the settings that differ between its points.
        out: an SVG file; that of an earlier sweep goes.

    Returns:
        Whether it was drawn: there are two points with operations and with a measure, and matplotlib.

    Raises:
        OSError: it cannot be written.
    """
    out.unlink(missing_ok=True)
    x, y = (next((name for name in names if name in frame), None) for names in (COSTS, MEASURES))
    if x is None or y is None:
        return False
    rows = frame.dropna(subset=[x, y])
    if len(rows) < 2:
        return False
    try:
        import matplotlib
    except ImportError:
        return False
    from matplotlib.figure import Figure

    names = [name for name in varying if pd.to_numeric(frame[name], errors="coerce").isna().any()]
    curves: dict[str, list[Any]] = {}
    for row in rows.to_dict("records"):
        curves.setdefault(", ".join(str(row[name]) for name in names if not pd.isna(row[name])), []).append(
            row
        )
    # Without a salt each drawing gets other names inside.
    with matplotlib.rc_context({"svg.hashsalt": "evt", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        for i, (name, points) in enumerate(curves.items()):
            points.sort(key=lambda row: row[x])
            style = STYLES[i % len(STYLES)]
            axes.plot([row[x] for row in points], [row[y] for row in points], style, label=name, markersize=5)
        axes.set_xlabel(COSTS[x])
        axes.set_ylabel(MEASURES[y])
        axes.grid(alpha=0.3)
        if names:
            axes.legend(fontsize=8)
        with replacing(out) as part:
            figure.savefig(part, format="svg", metadata={"Date": None})
    return True
