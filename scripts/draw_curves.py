"""Draw accuracy over operations from a small table.

python scripts/draw_curves.py results/table_c_mini.csv results/table_c_mini.svg
"""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
import sys
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "evt"  # else each drawing gets other names inside
from matplotlib import pyplot as plt  # noqa: E402

from evt.files import check_writable, replacing, sentence  # noqa: E402

MEASURES = {"map50": ("GFlops a frame (Transformer)", "mAP50"), "top1": ("GFlops a clip", "top-1, %")}
"""Columns of accuracy, and what the axes are called."""


def read_table(path: Path) -> pd.DataFrame:
    """A table with the columns that are drawn.

    Raises:
        ValueError: the file cannot be read, is no csv, or lacks a column or rows; the message says which.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path}: cannot be read as a csv ({reason})") from error
    lacking = [name for name in ("variant", "gflops", "interval") if name not in table]
    if not any(name in table for name in MEASURES):
        lacking.append(" or ".join(MEASURES))
    if lacking:
        raise ValueError(
            f"{path}: has no column {', '.join(lacking)}; its columns are {', '.join(map(str, table.columns))}"
        )
    measure = next(name for name in MEASURES if name in table)
    for name in ("gflops", "interval", measure):
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise ValueError(f"{path}: column {name} has values that are no numbers")
    if table.empty:
        raise ValueError(f"{path}: has no rows; at least 1 is needed")
    return table


def draw(table: pd.DataFrame, out: Path) -> None:
    """One curve for rows that differ in their setting alone, a point for single ones; bars are the intervals."""
    measure = next(name for name in MEASURES if name in table)
    if "trained" in table:  # a model tuned for each budget: these are one curve
        table["trained"] = table.trained.replace(r"r=.*", "tuned", regex=True)
    series = [name for name in ("model", "trained", "variant") if name in table]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for names, rows in table.groupby(series, sort=False):
        style = (
            {"marker": "o", "markersize": 4, "linewidth": 1.4}
            if len(rows) > 1
            else {"marker": "s", "linestyle": ""}
        )
        axes.errorbar(
            rows.gflops,
            rows[measure],
            rows.interval,
            label=", ".join(map(str, names)),
            capsize=2,
            elinewidth=0.6,
            **style,
        )
    x_label, y_label = MEASURES[measure]
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
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
        draw(table, arguments.out)
    except (OSError, ValueError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        sys.exit(2)
    print(f"written to {arguments.out}")
