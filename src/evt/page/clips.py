"""Runs, frame by frame: the clip, which tokens passed which gates, the errors there, and what came of it."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from PIL import Image
from plotly.subplots import make_subplots
from torch import Tensor

from evt.data.loading import build_data
from evt.data.video import Video
from evt.errors import DataError
from evt.evaluate.kept import RUN
from evt.evaluate.traces import Trace, file_name
from evt.page.figures import COLOURS, LAYOUT, in_script

WIDTH, QUALITY = 320, 60
"""Of the pictures: pixels at most, and JPEG's quality, by which a frame takes some 10 kB."""

PARTS = ("qkv", "proj", "MLP")
"""What the gates of a block are before, in their order."""

LINE, ROW = 110, 13
"""Heights in pixels: of a chart of one line, and of a gate in the chart of errors."""


@dataclass(frozen=True)
class Clip:
    """A video of a run, to be looked at.

    name: of the video.
    command: that made the run.
    folder: of the run.
    commit, machine: of the run, as far as they are known.
    shown, length: how many of its frames are here, of how many there are.
    size: of the pictures, width and height in pixels.
    blocks, parts: the names of what can be chosen; a gate is one of each, those of a block stand together.
    json, chart: what the viewer shows, and plotly's figure, both as JSON.
    height: of the figure, in pixels.
    """

    name: str
    command: str
    folder: str
    commit: str
    machine: str
    shown: int
    length: int
    size: tuple[int, int]
    blocks: Sequence[str]
    parts: Sequence[str]
    json: str
    chart: str
    height: int


def clip_of(path: Path, n_frames: int) -> Clip:
    """What `trace=true` left of a video, and its frames, which are read again.

    Args:
        path: the folder of a run, which stands for the first video of its data, or the trace of a video in it.
        n_frames: at most so many of its frames are shown, from the first on.

    Raises:
        DataError: there is no such run or trace, or its data cannot be read any more, or have changed.
    """
    folder = path if path.is_dir() else path.parent.parent
    config, made = folder / ".hydra/config.yaml", folder / RUN
    try:
        cfg = OmegaConf.load(config)
        overrides = OmegaConf.load(config.with_name("overrides.yaml"))
        about = json.loads(made.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is neither the folder of a finished run nor a trace in one; `python -m evt.run trace=true "
            "hydra.run.dir=FOLDER` makes one"
        ) from error
    wanted = None if path.is_dir() else path.name
    video, trace = _found(folder, wanted, build_data(cfg.data, "data", "videos").videos())
    if trace.grid is None:
        raise DataError(f"{path}: its tokens form no grid, so that none can be shown in a picture")
    shown = min(n_frames, len(trace.passed))
    pictures = [_picture(frame.image) for frame in itertools.islice(video, shown)]
    n_gates = trace.passed.shape[1]
    each = n_gates % len(PARTS) == 0
    blocks = [f"block {i + 1}" for i in range(n_gates // len(PARTS))] if each else ["all blocks"]
    parts = [f"before {part}" for part in PARTS] if each else ["before the first block"] * n_gates
    rows, columns = trace.grid
    tokens = trace.passed[:shown, :, -rows * columns :]
    content = {
        "pictures": [uri for uri, _ in pictures],
        "grid": trace.grid,
        "gates": [len(blocks), len(parts)],
        "passed": base64.b64encode(np.packbits(tokens.numpy()).tobytes()).decode(),
        "place": trace.place[:shown].tolist(),
        "first": trace.first[:shown].tolist(),
        "ops": [float(f"{x:.4g}") for x in trace.ops[:shown].tolist()],
        "error": [None if x != x else float(f"{x:.4g}") for x in trace.error[:shown].tolist()],
        "norms": [[float(f"{x:.4g}") for x in row] for row in trace.norms[:shown].tolist()],
    }
    chart, height = _chart(content, blocks, parts)
    code, machine = about.get("code", {}), about.get("machine", {})
    return Clip(
        video.name,
        " ".join(["python -m evt.run", *map(str, overrides)]),
        str(folder),
        str(code.get("commit", "in no commit"))[:10] + (", changed since" if code.get("changed") else ""),
        str(machine.get("device", "not recorded")),
        shown,
        len(trace.passed),
        pictures[0][1],
        blocks,
        parts,
        in_script(json.dumps(content)),
        chart,
        height,
    )


def _found(folder: Path, wanted: str | None, videos: Sequence[Video]) -> tuple[Video, Trace]:
    """The video that a trace is of; the first that has one, if none is wanted."""
    for video in videos:
        path = folder / "trace" / f"{file_name(next(iter(video)).name)}.safetensors"
        if path.exists() and wanted in (None, path.name):
            trace = Trace.read(path)
            if len(video) != len(trace.passed):
                raise DataError(
                    f"{path} is of {len(trace.passed)} frames, and {video.name} has {len(video)}: the data have "
                    "changed since the run"
                )
            return video, trace
    raise DataError(
        f"{folder} has no trace {'of its data' if wanted is None else wanted}; `python -m evt.run trace=true "
        f"hydra.run.dir={folder}` writes one of each video"
    )


def _picture(image: Tensor) -> tuple[str, tuple[int, int]]:
    """A frame, (3, H, W) uint8, as a small JPEG in a data URI, and its width and height."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy(), "RGB")
    picture.thumbnail((WIDTH, 2 * WIDTH))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", picture.size


def _chart(content: dict[str, Any], blocks: Sequence[str], parts: Sequence[str]) -> tuple[str, int]:
    """Error, operations and the errors at each gate, over the frames, as plotly's JSON; and its height in pixels."""
    frames = list(range(len(content["ops"])))
    gates = [f"{block}, {part}" for block in blocks for part in parts]
    lines = [("operations, GFlops", content["ops"], COLOURS[1], "dash")]
    if any(x is not None for x in content["error"]):
        lines.insert(0, ("relative L2 error", content["error"], COLOURS[0], "solid"))
    heat = max(120, ROW * len(gates))
    heights = [LINE] * len(lines) + [heat]
    figure = make_subplots(len(heights), 1, shared_xaxes=True, row_heights=heights, vertical_spacing=0.05)
    figure.update_layout(template=None)
    for row, (name, values, colour, dash) in enumerate(lines, 1):
        hover = [f"frame {i}<br><b>{x}</b> {name}" for i, x in zip(frames, values, strict=True)]
        figure.add_scatter(
            x=frames, y=values, name=name, hovertext=hover, hoverinfo="text", row=row, col=1,
            mode="lines+markers", line={"color": colour, "width": 1.6, "dash": dash}, marker={"size": 4},
        )  # fmt: skip
    norms = np.array(content["norms"]).T  # (gates, frames)
    with np.errstate(divide="ignore"):
        logs = np.log10(norms)
    steps = [float(f"{x}e{power}") for power in range(-9, 10) for x in (1, 2, 5)]
    ticks = [x for x in steps if norms.min(initial=1e9, where=norms > 0) <= x <= norms.max()]
    figure.add_heatmap(
        x=frames,
        y=gates,
        z=[[float(x) if np.isfinite(x) else None for x in row] for row in logs],
        text=[
            [f"{gate}<br>frame {i}<br><b>{x:.3g}</b> mean norm" for i, x in enumerate(row)]
            for gate, row in zip(gates, norms, strict=True)
        ],
        hoverinfo="text",
        colorscale="Viridis",
        colorbar={
            "title": {"text": "norm"},
            "tickvals": [log10(x) for x in ticks],
            "ticktext": [f"{x:g}" for x in ticks],
            "thickness": 10,
            "x": 1,
            "y": 0,
            "yanchor": "bottom",
            "len": heat / sum(heights),
        },
        row=len(heights),
        col=1,
    )
    figure.update_xaxes(fixedrange=True, zeroline=False)
    figure.update_xaxes(title="frame", row=len(heights), col=1)
    figure.update_yaxes(fixedrange=True, zeroline=False, rangemode="tozero")
    first = [f"{block}, {parts[0]}" for block in blocks]
    figure.update_yaxes(autorange="reversed", tickvals=first, ticktext=blocks, row=len(heights), col=1)
    height = sum(heights) + 126
    figure.update_layout(
        height=height,
        margin={"l": 64, "r": 64, "t": 46, "b": 40, "autoexpand": False},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
        **LAYOUT,
    )
    return in_script(figure.to_json()), height
