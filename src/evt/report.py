"""Measurements as text."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import indent
from typing import Any

import tabulate

tabulate.MIN_PADDING = 0  # else columns are wider than their heads by two, whatever is in them

OF_CLIPS = {
    "tokens": {
        "views": ("views", "d"),
        "kept": ("share of the tokens kept", ".3f"),
        "tflops": ("TFlops of the clip", ".3g"),
        "dense_tflops": ("TFlops of the dense model", ".3g"),
        "ms": ("ms (median)", ".1f"),
        "dense_ms": ("ms of the dense model", ".1f"),
        "op_ratio": ("dense / this, operations", ".2f"),
        "time_ratio": ("dense / this, time", ".2f"),
    },
    "recognition": {
        "clips": ("clips", "d"),
        "skipped": ("clips that cannot be read", "d"),
        "missing": ("clips that are not on disk", "d"),
        "short": ("clips shorter than a view", "d"),
        "top1": ("top-1 in percent", ".2f"),
        "top5": ("top-5 in percent", ".2f"),
        "kept": ("share of the tokens kept", ".3f"),
        "tflops": ("TFlops a clip", ".3g"),
        "seconds": ("seconds a clip", ".3g"),
    },
}
"""The rows of a run on one clip and of one on a data set: the figure, what it is called, and its format."""


OF_MASKS = {
    "jf": "J&F of objects that are followed",
    "j": "J, regions",
    "f": "F, boundaries",
    "mae": "mean absolute error of saliency against masks",
    "max_f": "maximal F-measure of saliency",
}
"""What a run on masks of objects measures, and what it is called."""


def summary_table(metrics: dict[str, Any]) -> str:
    """The table that ends a run, from what it leaves in metrics.json."""
    if "first" in metrics:
        rows = _frames_rows(metrics)
    else:
        part = "tokens" if "tokens" in metrics else "recognition"
        rows = [
            [title, "", "", format(metrics[part][key], form)]
            for key, (title, form) in OF_CLIPS[part].items()
            if key in metrics[part]
        ]
    if "tflops" in metrics:
        rows.append(["TFlops of the clip", "", "", f"{metrics['tflops']:.3g}"])
    if "op_ratio" in metrics:
        rows.append(["dense / this, operations", "", "", f"{metrics['op_ratio']:.2f}"])
        rows.append(["dense / this, time of the spatial sub-model", "", "", f"{metrics['time_ratio']:.2f}"])
    detection = metrics.get("detection")
    if detection is not None:
        rows.append(["detections", "", "", str(detection["n_detections"])])
        map50 = detection["map50"]
        rows.append(["mAP50", "", "", f"none: {detection['reason']}" if map50 is None else f"{map50:.2f}"])
    measured = metrics.get("segmentation", {})
    segmentation = measured.get("mean", {})
    if measured.get("reason"):
        rows.append([OF_MASKS["jf"], "", "", f"none: {measured['reason']}"])
    for key, title in OF_MASKS.items():
        if segmentation.get(key) is not None:
            rows.append(
                [title, "", "", f"{segmentation[key]:.3f}" if key == "mae" else f"{segmentation[key]:.2f}"]
            )
    rows.append(["peak memory in MB", "", "", f"{metrics['peak_memory_bytes'] / 1e6:.0f}"])
    return columns(rows)


def main_figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """The numbers of metrics.json that a sweep's table has for each point: means over all frames or clips."""
    parts = (metrics[part] for part in ("all", "tokens", "recognition") if part in metrics)
    found = {name: x for name, x in next(parts).items() if isinstance(x, int | float)}
    found |= {name: metrics[name] for name in ("tflops", "op_ratio", "time_ratio") if name in metrics}
    if skipping := metrics.get("skipping"):
        found |= {f"skipping_{name}": x for name, x in skipping.items()}
        # What it is to be compared with: neither has the flush in it, which has no error.
        found["later_relative_l2_error"] = metrics["later"]["relative_l2_error"]
    if metrics.get("state_bytes"):
        found["state_mb"] = metrics["state_bytes"] / 1e6
    if "detection" in metrics:
        found["map50"] = metrics["detection"]["map50"]
    if "segmentation" in metrics:
        found |= {name: metrics["segmentation"]["mean"][name] for name in OF_MASKS}
    return found


def _frames_rows(metrics: dict[str, Any]) -> list[list[str]]:
    parts = [metrics["first"], metrics["later"], metrics["all"]]

    def row(title: str, key: str, form: str) -> list[str]:
        return [title, *(format(part[key], form) if key in part else "-" for part in parts)]

    rows = [
        row("frames", "frames", "d"),
        row("GFlops", "gflops", ".3f"),
        row("ms a frame (median)", "ms", ".1f"),
        row("ms of the dense model", "dense_ms", ".1f"),
        row("ms of the detector", "detector_ms", ".1f"),
        row("GFlops of the decoder", "decoder_gflops", ".3f"),
        row("ms of the decoder", "decoder_ms", ".1f"),
        row("relative L2 error", "relative_l2_error", ".2e"),
        *_skipping_rows(metrics),
        row("relative L2 error of the picture's patches", "feature_relative_l2", ".2e"),
        row("cosine of the picture's patches", "feature_cosine", ".5f"),
        row("mean absolute error of saliency", "saliency_mae", ".2e"),
        row("correlation of saliency", "saliency_correlation", ".5f"),
        row("IoU of saliency above 0.5", "saliency_iou", ".5f"),
    ]
    return [
        ["", "first frames", "later frames", "all frames"],
        *(cells for cells in rows if set(cells[1:]) != {"-"}),
        ["state in MB", "", "", f"{metrics['state_bytes'] / 1e6:.1f}"],
    ]


def _skipping_rows(metrics: dict[str, Any]) -> list[list[str]]:
    if not (skipping := metrics.get("skipping")):
        return []
    title = f"the same of frame skipping, 1 of {skipping['every']:.1f} run"
    return [[title, "", f"{skipping['relative_l2_error']:.2e}", ""]]


def columns(rows: Sequence[Sequence[str]], last: str = "right") -> str:
    """Columns of text for a terminal: the first to the left, the others to the right, and the last as it says."""
    sides = ["left", *["right"] * (len(rows[0]) - 2), last]
    text = tabulate.tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=sides)
    return indent(text, " ")
