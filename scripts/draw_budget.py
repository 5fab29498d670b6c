"""Draw the operations of each frame of a run, with its flushes and its budget, as the lower half of figure 1.

python -m evt.run model=vitdet_mini policy=scheduled policy.schedule='{0: 128, 20: 32}' hydra.run.dir=RUN
python scripts/draw_budget.py RUN OUT.svg

OUT ends in .svg, .png or .pdf. Of a run over several videos the first is drawn.
"""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "evt"  # else each drawing gets other names inside
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from evt.errors import DataError  # noqa: E402
from evt.evaluate.comparing import Run  # noqa: E402
from evt.files import check_writable, replacing, sentence  # noqa: E402


def draw(run: Run) -> Figure:
    """Operations over frames.

    Raises:
        ValueError: the run is not of frames.
    """
    name, records = next(iter(run.records.items()))
    if "cost" not in records:
        raise ValueError(f"{run.folder} is a run of clips; one of frames is needed")
    steps: list[dict[str, Any]] = records["cost"]
    gflops = [sum(step["ops"].values()) / 1e9 for step in steps]
    flushes = [i for i, step in enumerate(steps) if step["first"]]
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    axes.step(
        range(len(gflops)), gflops, where="mid", color="#0072b2", linewidth=1.4, label="operations of a frame"
    )
    axes.plot(flushes, [gflops[i] for i in flushes], "k^", markersize=6, label="flush")
    policy = run.made["settings"].get("policy", {})
    schedule = policy.get("schedule") or {0: policy.get("r")}
    for at, r in schedule.items():
        if r is not None and int(at) < len(gflops):
            axes.axvline(int(at), color="0.6", linewidth=0.8, linestyle=":")
            axes.annotate(f"r = {r}", (int(at) + 0.5, 0.02 * max(gflops)), fontsize=8)
    axes.set_ylim(0, 1.08 * max(gflops))
    axes.set_xlabel(f"frame of {name}")
    axes.set_ylabel("GFlops (Transformer)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    imports_are_done()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    try:
        if arguments.out.suffix not in (".svg", ".png", ".pdf"):
            raise ValueError(f"out is {arguments.out}; it must end in .svg, .png or .pdf")
        check_writable(arguments.out)
        figure = draw(Run.read(arguments.run))
        with replacing(arguments.out) as part:
            kind = arguments.out.suffix[1:]
            figure.savefig(part, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})
    except (DataError, OSError, ValueError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        sys.exit(2)
    print(f"written to {arguments.out}")
