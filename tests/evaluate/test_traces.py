"""Traces of what passed the gates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from evt.errors import DataError
from evt.evaluate.traces import Trace
from evt.run import run
from tests.commands import Refused, command

SMALL = ["model=vitdet_mini", "data.n_videos=2", "data.n_frames=4", "trace=true"]


def test_a_run_leaves_what_passed_in_each_video(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As many tokens at each gate as the policy says, and operations and errors as in metrics.json."""
    command(monkeypatch, run, *SMALL, "variant=temporal", "policy.r=40", f"hydra.run.dir={tmp_path}")
    traces = [Trace.read(path) for path in sorted((tmp_path / "trace").iterdir())]
    assert len(traces) == 2
    for trace in traces:
        assert trace.passed.shape == (4, 36, 256)
        assert trace.first.tolist() == [True, False, False, False]
        assert trace.passed[0].all()
        assert (trace.passed[1:].sum(-1) == 40).all()
        assert trace.norms[0].sum() == 0
        assert (trace.norms[1:] > 0).all()
        assert trace.grid == (16, 16)
        assert trace.place.tolist() == [[0, 0, 1, 1]] * 4
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    later = [torch.stack([getattr(trace, name)[1:] for trace in traces]).mean() for name in ("ops", "error")]
    assert later[0] == pytest.approx(metrics["later"]["gflops"])
    assert later[1] == pytest.approx(metrics["later"]["relative_l2_error"])


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    """Token counts that fill no byte, too; and without a grid."""
    passed = torch.rand(3, 2, 13) > 0.5
    first, place = torch.tensor([True, False, False]), torch.rand(3, 4)
    trace = Trace(passed, torch.rand(3, 2), first, torch.rand(3), torch.rand(3), place, None)
    trace.write(tmp_path / "a.safetensors")
    read = Trace.read(tmp_path / "a.safetensors")
    assert torch.equal(read.passed, passed)
    assert torch.equal(read.norms, trace.norms)
    assert read.grid is None
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as a trace"):
        Trace.read(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "variant", [["variant=base", "policy=none"], ["variant=skip", "policy=every", "policy.every=2"]]
)
def test_where_nothing_passes_gates_that_is_told(
    variant: list[str], refused: Refused, tmp_path: Path
) -> None:
    assert "trace is true" in refused(*SMALL, *variant, f"hydra.run.dir={tmp_path}")
