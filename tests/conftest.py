"""For all tests."""

import logging
import os
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from evt.evaluate.race import machine
from tests.commands import Refused, error

# The tensors of tests are small: a second thread costs more in waiting than it gives, above all on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Kernels differ between processors: say on which one the tests ran."""
    terminalreporter.write_line(f"processor: {machine(torch.device('cpu'))}")


@pytest.fixture(autouse=True)
def _logs_end() -> Iterator[None]:
    """A command that runs in the tests' process leaves its log open, in a folder that later tests may not find."""
    yield
    root = logging.getLogger()
    for handler in [
        x for x in root.handlers if isinstance(x, logging.FileHandler) and x.baseFilename != os.devnull
    ]:
        root.removeHandler(handler)
        handler.close()


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """What a command ends with that refuses the arguments; `task=` is another one than `evt.run`."""
    return partial(error, monkeypatch, capsys)
