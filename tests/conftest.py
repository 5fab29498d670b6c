"""For all tests."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch

from evt.evaluate.ledger import Ledger
from evt.evaluate.race import machine
from evt.tables import fill
from tests.commands import Refused, error

# The tensors of tests are small: a second thread costs more in waiting than it gives, above all on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
torch.set_num_threads(1)

if asked := os.environ.get("ATEN_CPU_CAPABILITY"):
    # What torch's compiler made for all that the processor has gives other numbers here, and it would take that.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = (
        f"{tempfile.gettempdir()}/torchinductor_of_evt_{os.getuid()}_{asked}"
    )


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


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tables are measured in the tests' process, since others take seconds to begin; test_pool.py has them.

    Returns:
        The settings of each table, as they come.
    """
    keys: list[str] = []

    def in_batches(
        function: Callable[[range], Any], n: int, size: int, ledger: Ledger, settings: str, *_: object
    ) -> list[Any]:
        keys.append(settings)
        found = []
        for batch in (range(n)[i : i + size] for i in range(0, n, size)):
            key = f"{batch} {settings}"
            if key not in ledger:
                ledger.put(key, function(batch))
            found.append(ledger[key])
        return found

    monkeypatch.setattr(fill, "in_batches", in_batches)
    return keys
