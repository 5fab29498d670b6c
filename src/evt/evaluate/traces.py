"""What each gate of each frame let through, in a file for each video."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from evt.errors import DataError
from evt.evaluate.trace import Seen
from evt.evaluate.watched import Watched
from evt.files import replacing
from evt.metrics.agreement import relative_l2

FORMAT = 4


@dataclass(frozen=True)
class Trace:
    """What happened in a video, by its T frames and the G gates of the network; in a flush all tokens pass all gates.

    passed: which of the N tokens passed, (T, G, N) bool.
    norms: mean L2 norm of the errors at each gate, (T, G) float32; 0 in a flush, which compares with nothing.
    first: whether a frame was a flush, (T,) bool.
    ops: operations of each frame, (T,) float32, in 10^9.
    error: relative L2 distance of the output from the dense model's, (T,) float32; nan where that did not run.
    place: where the frame lies in the square that the model sees: top, left, height and width, as shares of its side,
        (T, 4) float32.
    grid: rows and columns of the last of the tokens; None where these form none.
    """

    passed: Tensor
    norms: Tensor
    first: Tensor
    ops: Tensor
    error: Tensor
    place: Tensor
    grid: tuple[int, int] | None

    def write(self, path: Path) -> None:
        """Write it as safetensors, a bit for each token and gate; its folder is made.

        Raises:
            OSError: it cannot be written.
        """
        bits = torch.from_numpy(np.packbits(self.passed.numpy(), axis=-1))
        tensors = {
            "passed": bits,
            "norms": self.norms,
            "first": self.first,
            "ops": self.ops,
            "error": self.error,
            "place": self.place,
        }
        about = {
            "format": FORMAT,
            "n_tokens": self.passed.shape[-1],
            "grid": self.grid,
            "sha256": _hash(tensors),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            # One entry, since safetensors writes several in any order, and files of equal traces are to be equal.
            save_file(tensors, part, {"about": json.dumps(about)})

    @classmethod
    def read(cls, path: Path) -> Trace:
        """Read what `write` wrote.

        Raises:
            DataError: it is missing or damaged, or of another version.
        """
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get("about", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about.get("format") != FORMAT:
                raise DataError(
                    f"{path} is no trace of this version of evt; `python -m evt.run trace=true` writes one"
                )
            if about["sha256"] != _hash(tensors):
                raise DataError(f"{path} is damaged: its numbers are not those that were written")
            bits = np.unpackbits(tensors.pop("passed").numpy(), axis=-1, count=about["n_tokens"])
            grid = about["grid"] and tuple(about["grid"])
            return cls(passed=torch.from_numpy(bits).bool(), grid=grid, **tensors)
        except DataError:
            raise
        except Exception as error:  # whatever safetensors raises
            raise DataError(f"{path} cannot be read as a trace: {error}") from error


def _hash(tensors: dict[str, Tensor]) -> str:
    """Of all numbers, in the order of their names."""
    content = b"".join(tensors[name].contiguous().numpy().tobytes() for name in sorted(tensors))
    return hashlib.sha256(content).hexdigest()


@dataclass
class Traces:
    """An evaluator: writes a trace of each video.

    watched: the policy of the stream.
    folder: for the files.
    model: of frames, whose stream it is.
    """

    watched: Watched
    folder: Path
    model: Any
    _name: str = ""
    _frames: list[dict[str, Any]] = field(default_factory=list)

    def update(self, seen: Seen) -> None:
        """See `Evaluator`; the sample is a frame, after which the policy is asked what passed."""
        (step,) = seen.steps
        self._name = self._name or seen.sample.name
        error = relative_l2(step.output, seen.dense[0].output) if seen.dense else float("nan")
        gates = self.watched.gates
        n_tokens = self.watched.n_tokens
        self._frames.append(
            {
                "first": step.first,
                "ops": step.ops.total() / 1e9,
                "error": error,
                "place": [x / self.model.size for x in self.model.place_of(*seen.sample.image.shape[-2:])],
                "passed": [self.watched.share(n_tokens, gate).bool() for gate in gates],
                "norms": [float(self.watched.norms(n_tokens, gate).mean()) for gate in gates],
            }
        )
        self.watched.begin()

    def record(self) -> dict[str, Any]:
        """See `Evaluator`: where the trace was written to."""
        later = [frame for frame in self._frames if frame["passed"]]
        if not later:
            return {"trace": None}
        shape = torch.stack(later[0]["passed"]).shape
        whole, nothing = torch.ones(shape, dtype=torch.bool), torch.zeros(shape[0])
        trace = Trace(
            torch.stack(
                [torch.stack(frame["passed"]) if frame["passed"] else whole for frame in self._frames]
            ),
            torch.stack(
                [torch.tensor(frame["norms"]) if frame["norms"] else nothing for frame in self._frames]
            ),
            torch.tensor([frame["first"] for frame in self._frames]),
            torch.tensor([frame["ops"] for frame in self._frames]),
            torch.tensor([frame["error"] for frame in self._frames]),
            torch.tensor([frame["place"] for frame in self._frames]),
            self.model.net.grid,
        )
        path = self.folder / f"{file_name(self._name)}.safetensors"
        trace.write(path)
        return {"trace": str(path.relative_to(self.folder.parent))}

    def add(self, record: dict[str, Any]) -> None:
        """See `Evaluator`; each video has its own file."""


def file_name(frame: str) -> str:
    """A name for the file of a video, from that of its first frame."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", frame.rpartition(":")[0] or frame).strip("_.")
