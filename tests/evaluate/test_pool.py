"""Measuring in several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evt.errors import ConfigError
from evt.lock import locked
from tests.common import ROOT

SCRIPT = """
from pathlib import Path
from tqdm import tqdm
from evt.evaluate.ledger import Ledger
from evt.evaluate.pool import in_batches
from tests.evaluate.test_pool import never_ends
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


def begun(folder: Path, script: str = SCRIPT) -> tuple[subprocess.Popen[str], list[int]]:
    """A run of two workers, and their numbers, once both are at work."""
    (folder / "script.py").write_text(script)
    path = os.pathsep.join([str(Path.cwd()), *sys.path])
    run = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(list(folder.glob("*.pid"))) == 2)
    return run, [int(file.stem) for file in folder.glob("*.pid")]


@pytest.mark.parametrize(
    ("to_parent", "to_worker", "worker", "said"),
    [
        (None, signal.SIGKILL, 0, "ChildProcessError: a process of this run was ended from outside"),
        (None, signal.SIGKILL, 1, "ChildProcessError: a process of this run was ended from outside"),
        (None, signal.SIGSTOP, 1, "of this run was stopped, and the run waits for it in vain"),
        (signal.SIGINT, signal.SIGSTOP, 0, "KeyboardInterrupt"),
    ],
)
def test_a_worker_that_is_stopped_or_killed_does_not_hang_its_parent(
    tmp_path: Path, to_parent: signal.Signals | None, to_worker: signal.Signals, worker: int, said: str
) -> None:
    run, workers = begun(tmp_path)
    os.kill(sorted(workers)[worker], to_worker)  # the one that was begun first, or last
    if to_parent:
        run.send_signal(to_parent)
    assert said in run.communicate(timeout=60)[1]
    wait_until(lambda: not any(map(is_alive, workers)))


LOCKED = """
import os, time
from pathlib import Path
from evt.lock import locked
with locked(Path(".")):
    for _ in range(2):
        if os.fork() == 0:
            Path(f"{os.getpid()}.pid").touch()
            time.sleep(600)
    time.sleep(600)
"""


def test_a_killed_run_leaves_its_folder_unlocked_though_its_forked_workers_live(tmp_path: Path) -> None:
    run, workers = begun(tmp_path, LOCKED)
    try:
        with pytest.raises(ConfigError, match="another run is writing to"), locked(tmp_path):
            pass
        run.kill()
        run.wait()
        assert all(map(is_alive, workers))
        with locked(tmp_path):
            pass
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)


def test_ctrl_c_during_imports_is_one_word(tmp_path: Path) -> None:
    """torch is a module that tells that it is being imported, and takes its time."""
    (tmp_path / "torch.py").write_text(
        "from pathlib import Path\nPath('begun').touch()\nimport time\ntime.sleep(60)"
    )
    run = subprocess.Popen(
        [sys.executable, "-m", "evt.run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((tmp_path / "begun").exists)
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=60)[1] == "interrupted\n"
    assert run.returncode == 130
