"""Timing streams against one another: frame by frame in one run, so that a busy machine slows all of them alike."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from evt.evaluate.trace import Streamed, timed
from evt.eventful import Stream, count_ops
from evt.eventful.profiling import PARTS, PREFIX, named_parts

WARM_UP = 2
"""Frames that run before any is timed, a flush and a later one: torch plans its kernels on their first call."""


@dataclass
class Laps:
    """What one stream did.

    first, later: seconds of each first frame, a flush, and of each later one.
    later_ops: operations of each of the latter, as they were run.
    nbytes: of the state that it keeps.
    """

    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    later_ops: list[int] = field(default_factory=list)
    nbytes: int = 0


def race(streams: Mapping[str, Streamed], inputs: Sequence[Tensor], repeats: int) -> dict[str, Laps]:
    """Run all streams over the same frames, each frame through all of them before the next.

    Who goes first changes from frame to frame.

    Args:
        streams: by name.
        inputs: at least 3 frames as the streams take them.
        repeats: how often all frames are run, each time from a flush on.
    """
    laps = {name: Laps() for name in streams}
    order = list(streams)
    frames = [inputs[:WARM_UP], *[inputs] * repeats]
    with tqdm(total=sum(map(len, frames)), desc=", ".join(streams), unit="frame") as bar:
        for repetition, part in enumerate(frames):
            for stream in streams.values():
                stream.reset()
            for i, x in enumerate(part):
                for name in order:
                    with count_ops() as ops:
                        _, seconds = timed(streams[name], x)
                    own = laps[name]
                    own.nbytes = streams[name].nbytes
                    if repetition and i:
                        own.later.append(seconds)
                        own.later_ops.append(ops.total())
                    elif repetition:
                        own.first.append(seconds)
                order = [*order[1:], order[0]]
                bar.update()
    return laps


def milliseconds_of_parts(stream: Stream, inputs: Sequence[Tensor]) -> dict[str, float]:
    """Where the time of a later frame goes: milliseconds by part, in the mean over all frames but the first.

    Under torch's profiler everything takes longer, and small operations most: take these as shares.
    """
    # Else the profiler tells the terminal whenever it starts and stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    cuda = inputs[0].is_cuda
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    stream.reset()
    stream(inputs[0])
    with named_parts(stream.network), profile(activities=activities) as run:
        _, seconds = timed(lambda: [stream(x) for x in inputs[1:]])
    n = len(inputs) - 1
    spent = dict.fromkeys(PARTS, 0.0)
    for event in run.key_averages():
        if event.key.startswith(PREFIX):
            microseconds = event.device_time_total if cuda else event.cpu_time_total
            spent[event.key.removeprefix(PREFIX)] += microseconds / 1e3 / n
    return {**spent, "rest": 1e3 * seconds / n - sum(spent.values())}


def machine(device: torch.device) -> str:
    """The processor or GPU that a device is, with the threads of torch, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    name = names[0] if names else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{name} ({capability}), {threads} thread{'s' if threads > 1 else ''}, torch {torch.__version__}"
