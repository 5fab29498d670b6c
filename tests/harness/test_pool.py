"""Measuring in several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SCRIPT = """
from pathlib import Path
from tqdm import tqdm
from evt.harness.ledger import Ledger
from evt.harness.pool import in_batches
from tests.harness.test_pool import never_ends
if __name__ == "__main__":
    in_batches(never_ends, 2, 1, Ledger(Path("ledger.jsonl")), "", 2, tqdm(disable=True))
"""


def never_ends(batch: range) -> None:
    """Leave this process's number, and wait."""
    Path(f"{os.getpid()}.pid").touch()
    time.sleep(600)


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_processes_of_a_killed_run_end(tmp_path: Path) -> None:
    """Else each would keep its memory until the machine is restarted."""
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(Path.cwd()), *sys.path])
    run = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    workers = [int(file.stem) for file in tmp_path.glob("*.pid")]
    wait_until(lambda: not any(map(is_alive, workers)))


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Return once the condition holds; fail where it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
