"""Draw the paper's figures 7, 8 and 9 from the tables: its accuracies over our operations, and the small benchmark.

python scripts/draw_figures.py 7 results/figure_7
python scripts/draw_figures.py 8 results/figure_8 --tables results

Writes OUT.svg and OUT.png.
"""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "evt"  # else each drawing gets other names inside
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from evt.files import check_writable, replacing, sentence  # noqa: E402
from evt.tables.drawn import read_csv, require, require_rows  # noqa: E402

# Colours of Okabe and Ito (2008), which the colour-blind tell apart; markers and lines tell the rest.
STYLES: dict[str, dict[str, Any]] = {
    "base": {"color": "#000000", "marker": "D", "linestyle": ""},
    "temporal": {"color": "#0072b2", "marker": "o", "linestyle": "-"},
    "tokenwise": {"color": "#d55e00", "marker": "s", "linestyle": "--"},
    "stgt": {"color": "#009e73", "marker": "^", "linestyle": ":"},
    "skip": {"color": "#7f7f7f", "marker": "x", "linestyle": "-."},
    "rows": {"color": "#cc79a7", "marker": "v", "linestyle": "-"},
}
NAMES = {
    "base": "dense",
    "temporal": "Eventful",
    "tokenwise": "token-wise alone",
    "stgt": "STGT",
    "skip": "frame skipping",
    "rows": "rows (not the paper's)",
}
TUNED = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Of the r for which a model was tuned, from the largest down."""


def read(
    folder: Path, name: str, variants: Sequence[str], numbers: Sequence[str], texts: Sequence[str] = ()
) -> pd.DataFrame:
    """A table of a folder, with rows of some variants, and columns of numbers and of text.

    Raises:
        ValueError: there is none that can be read, or it lacks one of these; the message says which.
    """
    path = folder / f"{name}.csv"
    table = read_csv(path)
    require(table, path, ("variant", *texts), numbers)
    require_rows(table, path, variants)
    return table


def figure_7(folder: Path) -> Figure:
    """By how much operations and accuracy fall, by r: the paper's at two sizes, and the small benchmark's."""
    rows = ("base", "temporal")
    large = read(folder, "table_c", rows, ("size", "r", "gflops", "map50_paper"))
    small = read(folder, "table_c_mini", rows, ("r", "gflops", "map50", "minus_base_interval"), ["policy"])
    panels = [
        (f"ViTDet-B, {size} pixels, the paper's mAP50", large[large["size"] == size], "map50_paper")
        for size in large["size"].unique()
    ]
    panels.append(("small ViTDet, generated video", small[small.policy.isna()], "map50"))
    figure, both = plt.subplots(2, len(panels), figsize=(10, 4.6), sharex="col", layout="constrained")
    for column, (title, table, accuracy) in enumerate(panels):
        base = table[table.variant == "base"].iloc[0]
        ours = table[table.variant == "temporal"].sort_values("r", ascending=False)
        names = [f"{r:.0f}" for r in ours.r]
        above, below = both[0][column], both[1][column]
        saved = above.bar(names, base.gflops / ours.gflops, color="#0072b2", edgecolor="black", linewidth=0.6)
        above.bar_label(saved, fmt="%.1f", fontsize=7)
        above.margins(y=0.12)  # for the number above the tallest bar
        lost = 100 * (ours[accuracy] / base[accuracy] - 1)
        bars: dict[str, Any] = {}
        if "minus_base_interval" in ours:
            bars = {
                "yerr": 100 * ours.minus_base_interval / base[accuracy],
                "capsize": 2,
                "error_kw": {"linewidth": 0.8},
            }
        below.bar(names, lost, color="#e69f00", edgecolor="black", linewidth=0.6, hatch="//", **bars)
        above.set_title(title, fontsize=9)
        below.set_xlabel("r, tokens of each frame")
        for axes in (above, below):
            axes.grid(axis="y", alpha=0.3)
            axes.tick_params(labelsize=8)
    both[0][0].set_ylabel("operations saved,\ntimes fewer")
    both[1][0].set_ylabel("mAP50 against\ndense, %")
    return figure


def figure_8(folder: Path) -> Figure:
    """Accuracy over operations: the paper's at two sizes, and the small benchmark's with frame skipping."""
    large = read(
        folder, "table_c", ("base", "temporal", "tokenwise", "stgt"), ("size", "gflops", "map50_paper")
    )
    small = read(folder, "table_c_mini", list(STYLES), ("gflops", "map50", "interval"), ["policy"])
    sizes = list(large["size"].unique())
    figure, panels = plt.subplots(1, len(sizes) + 1, figsize=(10, 3.8), layout="constrained")
    for axes, size in zip(panels, sizes, strict=False):
        _curves(axes, large[large["size"] == size], "map50_paper")
        axes.set_title(f"ViTDet-B, {size} pixels, the paper's mAP50", fontsize=9)
    _curves(panels[-1], small[small.policy.isna()], "map50")
    panels[-1].set_title("small ViTDet, generated video", fontsize=9)
    for axes in panels:
        axes.set_xlabel("GFlops a frame (Transformer)")
        axes.legend(fontsize=7, loc="lower right")
    panels[0].set_ylabel("mAP50")
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, ops: str, accuracy: str, label: str, **style: Any) -> None:
    """Rows, in the order of what they cost, with their intervals where all have one."""
    rows = rows.sort_values(ops)
    interval = rows.interval if "interval" in rows and rows.interval.notna().all() else None
    axes.errorbar(
        rows[ops],
        rows[accuracy],
        interval,
        label=label,
        capsize=2,
        elinewidth=0.6,
        markersize=4,
        linewidth=1.3,
        **style,
    )


def _curves(axes: Axes, table: pd.DataFrame, accuracy: str) -> None:
    for variant, style in STYLES.items():
        rows = table[table.variant == variant]
        if rows.empty:
            continue
        _curve(axes, rows, "gflops", accuracy, NAMES[variant], **style)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)


def figure_9(folder: Path) -> Figure:
    """Top-1 over operations of ViViT, by the r that it was tuned for: the paper's, and the small benchmark's."""
    rows = ("base", "temporal")
    large = read(folder, "table_d", rows, ("size", "tuned_r", "tflops", "top1_paper"))
    small = read(folder, "table_d_mini", rows, ("tuned_r", "gflops", "top1", "interval"))
    sizes = list(large["size"].unique())
    figure, panels = plt.subplots(1, len(sizes) + 1, figsize=(10, 3.8), layout="constrained")
    for axes, size in zip(panels, sizes, strict=False):
        _tuned(axes, large[large["size"] == size], "tflops", "top1_paper")
        axes.set_title(f"ViViT-B, {size} pixels, the paper's top-1", fontsize=9)
        axes.set_xlabel("TFlops a video")
    _tuned(panels[-1], small, "gflops", "top1")
    panels[-1].set_title("small ViViT, generated clips", fontsize=9)
    panels[-1].set_xlabel("GFlops a clip")
    panels[0].set_ylabel("top-1, %")
    for axes in panels:
        axes.legend(fontsize=7, loc="lower right")
    return figure


def _tuned(axes: Axes, table: pd.DataFrame, ops: str, accuracy: str) -> None:
    draw = partial(_curve, axes, ops=ops, accuracy=accuracy)
    draw(table[table.variant == "base"], label=NAMES["base"], **STYLES["base"])
    if not (skip := table[table.variant == "skip"]).empty:
        draw(skip, label=NAMES["skip"], **STYLES["skip"])
    tuned = sorted(table.tuned_r.dropna().unique(), reverse=True)
    for r, colour, marker in zip(tuned, TUNED, "os^v", strict=False):
        rows = table[(table.variant == "temporal") & (table.tuned_r == r)]
        draw(rows, label=f"Eventful, tuned for r = {r:.0f}", color=colour, marker=marker, linestyle="-")
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)


FIGURES = {"7": figure_7, "8": figure_8, "9": figure_9}


if __name__ == "__main__":
    imports_are_done()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("out", type=Path, help="without .svg and .png")
    parser.add_argument("--tables", type=Path, default=Path("results"), help="the folder of the tables")
    arguments = parser.parse_args()
    try:
        outs = [arguments.out.with_name(arguments.out.name + ending) for ending in (".svg", ".png")]
        for out in outs:
            check_writable(out)
        figure = FIGURES[arguments.figure](arguments.tables)
        for out in outs:
            with replacing(out) as part:
                figure.savefig(
                    part,
                    format=out.suffix[1:],
                    dpi=150,
                    metadata={"Date": None} if out.suffix == ".svg" else {},
                )
    except (OSError, ValueError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        sys.exit(2)
    print(f"written to {' and '.join(map(str, outs))}")
