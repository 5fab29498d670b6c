"""Time what evt.convert makes of models, against the models themselves.

python scripts/time_conversion.py results/time_conversion.md

Random weights, float32, on pictures of which a square of an eighth of the area changes from frame to frame. The
model, its converted network, densely, and streams with r = 1/8 take turns, frame by frame; medians of later frames.
"""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evt.errors import ConfigError
from evt.evaluate.race import Laps, machine, race
from evt.eventful import VARIANTS, TopR
from evt.files import check_writable, sentence, write
from evt.models.foreign import convert
from evt.models.foreign.libraries import imported

R = 1 / 8
"""Share of the tokens that pass, and of the picture that changes."""

TOP = """# What a converted model takes

Milliseconds of a later frame, medians, with random weights in float32 on pictures of which an eighth changes from
frame to frame, all in one run, taking turns frame by frame. *Converted* is the dense network; `rows` and `temporal`
(on the fast path) are streams with r = 1/8. In parentheses: how many times faster than the model as it was.

Made by `python scripts/time_conversion.py results/time_conversion.md{arguments}` on {machine}{busy}.

| model | tokens | as it was | converted | `rows` | `temporal` |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Shape:
    """A model that is timed.

    title: of its row.
    side: of the pictures in pixels.
    patch: side of a patch.
    build: the model, small or not.
    features: of pictures, by the model's own code.
    """

    title: str
    side: int
    patch: int
    build: Callable[[bool], nn.Module]
    features: Callable[[Any, Tensor], Tensor]


class Dense:
    """A network that keeps nothing, as a stream."""

    nbytes = 0

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        self._run = run

    def reset(self) -> None:
        """There is nothing to forget."""

    def __call__(self, x: Tensor) -> Tensor:
        """Run a frame."""
        return self._run(x)


def vit(small: bool) -> nn.Module:
    """timm's ViT-B/16 at 384."""
    settings = {"depth": 1} if small else {}
    model: nn.Module = imported("timm").create_model("vit_base_patch16_384", pretrained=False, **settings)
    return model


def sam(small: bool) -> nn.Module:
    """The image encoder of SAM, ViT-B."""
    library = imported("transformers")
    settings = {"num_hidden_layers": 1, "global_attn_indexes": [], "image_size": 256} if small else {}
    model: nn.Module = library.SamVisionModel(library.SamVisionConfig(**settings))
    return model


def sam3(small: bool, blocks: int) -> nn.Module:
    """The image encoder of SAM 3, one global block in eight as there, the last of them here."""
    library = imported("transformers")
    settings = {"image_size": 336, "hidden_size": 128, "num_attention_heads": 2} if small else {}
    of_all = [7, 15, 23, 31] if blocks == 32 else [blocks - 1]
    config = library.Sam3ViTConfig(num_hidden_layers=blocks, global_attn_indexes=of_all, **settings)
    model: nn.Module = library.Sam3ViTModel(config)
    return model


def shapes(small: bool, blocks: int) -> list[Shape]:
    """What is timed."""

    def hidden_state(model: Any, x: Tensor) -> Tensor:
        out: Tensor = model(pixel_values=x).last_hidden_state
        return out

    some = "" if blocks == 32 else f", {blocks} of its 32 blocks"
    return [
        Shape("ViT-B/16 at 384 (timm)", 384, 16, vit, lambda model, x: model.forward_features(x)),
        Shape("SAM, image encoder (ViT-B)", 256 if small else 1024, 16, sam, hidden_state),
        Shape(
            f"SAM 3, image encoder{some}",
            336 if small else 1008,
            14,
            lambda small: sam3(small, blocks),
            hidden_state,
        ),
    ]


def pictures(side: int, n_frames: int) -> Iterator[Tensor]:
    """Noise (1, 3, side, side), of which a square that moves along a diagonal is drawn anew in each frame."""
    x = torch.randn(1, 3, side, side)
    width = round(R**0.5 * side)
    for i in range(n_frames):
        start = i * (side - width) // max(1, n_frames - 1)
        x = x.clone()
        x[..., start : start + width, start : start + width] = torch.randn(1, 3, width, width)
        yield x


@torch.inference_mode()
def laps_of(shape: Shape, small: bool, n_frames: int, repeats: int) -> dict[str, Laps]:
    """What the model, its converted network and streams of it took."""
    torch.manual_seed(0)
    model = shape.build(small).eval()
    net = convert(model)
    temporal = replace(VARIANTS["temporal"], fast=True)
    streams: dict[str, Any] = {
        "as it was": Dense(lambda x: shape.features(model, x)),
        "converted": Dense(net),
        "rows": net.stream("rows", TopR(R)),
        "temporal": net.stream(temporal, TopR(R)),
    }
    return race(streams, list(pictures(shape.side, n_frames)), repeats)


def row(shape: Shape, laps: dict[str, Laps]) -> str:
    """A row of the table."""
    ms = {name: 1e3 * statistics.median(own.later) for name, own in laps.items()}
    cells = [f"{ms['as it was']:.0f}"]
    cells += [f"{ms[name]:.0f} ({ms['as it was'] / ms[name]:.2f})" for name in list(ms)[1:]]
    return f"| {shape.title} | {(shape.side // shape.patch) ** 2} | {' | '.join(cells)} |\n"


if __name__ == "__main__":
    imports_are_done()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="models of few blocks, in seconds")
    parser.add_argument("--blocks", type=int, default=32, help="of SAM 3's 32; the last one is global")
    parser.add_argument("--frames", type=int, default=8, help="of which the first is computed whole")
    parser.add_argument("--repeats", type=int, default=1, help="how often they are run")
    parser.add_argument("--busy", action="store_true", help="say that other work ran beside")
    arguments = parser.parse_args()
    if arguments.frames < 3 or arguments.repeats < 1 or not 1 <= arguments.blocks <= 32:
        parser.exit(2, "error: at least 3 frames, 1 repeat, and from 1 to 32 blocks\n")
    blocks = min(arguments.blocks, 2) if arguments.small else arguments.blocks
    given = [f" --{name}" for name in ("small", "busy") if getattr(arguments, name)]
    given += [
        f" --{name} {getattr(arguments, name)}"
        for name in ("blocks", "frames", "repeats")
        if getattr(arguments, name) != parser.get_default(name)
    ]
    try:
        check_writable(arguments.out)
        lines = [
            row(shape, laps_of(shape, arguments.small, arguments.frames, arguments.repeats))
            for shape in shapes(arguments.small, blocks)
        ]
        busy = ", which others used, too" if arguments.busy else ""
        top = TOP.format(arguments="".join(given), machine=machine(torch.device("cpu")), busy=busy)
        write(arguments.out, top, *lines)
    except ModuleNotFoundError as error:
        parser.exit(2, f"error: {error.name} is not installed: pip install 'evt[timm,transformers]'\n")
    except (ConfigError, OSError) as error:
        parser.exit(2, f"error: {sentence(error)}\n")
    print("".join(lines), end="")
    print(f"written to {arguments.out}")
