"""Draw accuracy over operations from a small table, or error over frames from the table of that.

python scripts/draw_curves.py results/table_c_mini.csv results/table_c_mini.svg
python scripts/draw_curves.py results/error_over_time.csv results/error_over_time.svg
"""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "evt"  # else each drawing gets other names inside
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import StrMethodFormatter  # noqa: E402

from evt.files import check_writable, replacing, sentence  # noqa: E402
from evt.tables.drawn import read_csv, require  # noqa: E402

MEASURES = {"map50": ("GFlops a frame (Transformer)", "mAP50"), "top1": ("GFlops a clip", "top-1, %")}
"""Columns of accuracy, and what the axes are called."""
ERROR = re.compile(r"error_(\d+)")
"""Columns of error: up to which frame since the flush."""
MARKERS = "os^vDPX*<>hdp8H"
STYLES: list[dict[str, Any]] = [
    {"color": f"C{i % 10}", "linestyle": ("-", "--", "-.", ":")[i % 4], "marker": marker}
    for i, marker in enumerate(MARKERS)
]
"""Of one curve after the other; in black and white, too, they can be told apart."""


def read_table(path: Path) -> pd.DataFrame:
    """A table with the columns that are drawn.

    Raises:
        ValueError: the file cannot be read, is no csv, or lacks a column or rows; the message says which.
    """
    table = read_csv(path)
    over_time = _errors(table)
    if over_time:
        require(table, path, ("variant",), ("r", "every", *over_time))
        return table
    measure = next((name for name in MEASURES if name in table), " or ".join(MEASURES))
    require(table, path, ("variant",), ("gflops", "interval", measure))
    return table


def draw(table: pd.DataFrame, out: Path) -> None:
    """One curve for rows that differ in their setting alone, a point for single ones; bars are the intervals."""
    measure = next(name for name in MEASURES if name in table)
    if "trained" in table:  # a model tuned for each budget: these are one curve
        table["trained"] = table.trained.replace(r"r=.*", "tuned", regex=True)
    if "policy" in table:
        table["policy"] = table.policy.fillna("")  # the usual one
    series = [name for name in ("model", "trained", "variant", "policy") if name in table]
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    for i, (names, rows) in enumerate(table.groupby(series, sort=False)):
        style = {**STYLES[i % len(STYLES)], "markersize": 4, "linewidth": 1.4}
        if len(rows) == 1:
            style["linestyle"] = ""
        axes.errorbar(
            rows.gflops,
            rows[measure],
            rows.interval,
            label=", ".join(filter(None, map(str, names))),
            capsize=2,
            elinewidth=0.6,
            **style,
        )
    x_label, y_label = MEASURES[measure]
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    _save(figure, out)


def draw_over_time(table: pd.DataFrame, out: Path) -> None:
    """A panel for each r, with a curve for each variant, and those of frame skipping in all of them, in grey."""
    errors = _errors(table)
    frames = [int(name.removeprefix("error_")) for name in errors]
    budgets = table.r.dropna().unique()
    skip = table[table.every.notna()]
    figure, panels = plt.subplots(
        1, len(budgets), figsize=(10, 4.2), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, r in zip(panels[0], budgets, strict=True):
        for style, (_, row) in zip(STYLES, table[table.r == r].iterrows(), strict=False):
            axes.errorbar(
                frames,
                row[errors],
                row[[f"{name}_interval" for name in errors]],
                label=row.variant,
                markersize=4,
                linewidth=1.4,
                capsize=2,
                elinewidth=0.6,
                **style,
            )
        for _, row in skip.iterrows():
            axes.plot(frames, row[errors], color="0.6", linewidth=1)
            axes.annotate(
                f"1 of {row.every:.0f} frames",
                (frames[-1], row[errors[-1]]),
                ha="right",
                va="bottom",
                fontsize=7,
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(frames, frames, fontsize=8)
        axes.set_title(f"r = {r:.0f}", fontsize=10)
        axes.set_xlabel("frames since the flush, up to")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("relative L2 error of the Transformer's output")
    panels[0][0].legend(fontsize=8, loc="upper left")
    _save(figure, out)


def _errors(table: pd.DataFrame) -> list[str]:
    return [name for name in map(str, table.columns) if ERROR.fullmatch(name)]


def _save(figure: Figure, out: Path) -> None:
    with replacing(out) as part:
        figure.savefig(part, metadata={"Date": None})


if __name__ == "__main__":
    imports_are_done()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    try:
        table = read_table(arguments.table)
        check_writable(arguments.out)
        (draw_over_time if _errors(table) else draw)(table, arguments.out)
    except (OSError, ValueError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        sys.exit(2)
    print(f"written to {arguments.out}")
