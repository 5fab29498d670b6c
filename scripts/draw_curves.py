"""Draw accuracy over operations from a small table.

python scripts/draw_curves.py results/table_c_mini.csv results/table_c_mini.svg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "evt"  # else each drawing gets other names inside
from matplotlib import pyplot as plt  # noqa: E402


def draw(table: pd.DataFrame, out: Path) -> None:
    """One curve a variant with gates, a point for each without; bars are the intervals."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for variant, rows in table.groupby("variant", sort=False):
        gated = len(rows) > 1
        style = (
            {"marker": "o", "markersize": 4, "linewidth": 1.4} if gated else {"marker": "s", "linestyle": ""}
        )
        axes.errorbar(
            rows.gflops, rows.map50, rows.interval, label=variant, capsize=2, elinewidth=0.6, **style
        )
    axes.set_xlabel("GFlops a frame (Transformer)")
    axes.set_ylabel("mAP50")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    draw(pd.read_csv(arguments.table), arguments.out)
