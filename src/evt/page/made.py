"""How a table was made: the commit it came with, the command, the machine and the data."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evt.evaluate.kept import git
from evt.page.tables import Table
from evt.settings import CONFIG_DIR

UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Made:
    """How a table was made; what is not known is said so."""

    commit: str
    command: str
    machine: str
    data: str


def made(table: Table, commit: str, group: Mapping[str, Any]) -> Made:
    """From its notes, and from what page.yaml says of its group."""
    command = group["tables"].get(table.name)
    if command is None and (CONFIG_DIR / "table" / f"{table.name}.yaml").is_file():
        command = f"python -m evt.reproduce table={table.name}"
    used = sorted({str(x) for x in table.cells["data"] if x}) if "data" in table.cells else []
    data = said("Data", table.notes) or ", ".join(used) or group["data"] or UNKNOWN
    return Made(commit, command or UNKNOWN, said("Machine", table.notes) or UNKNOWN, data)


def said(name: str, notes: Sequence[str]) -> str | None:
    """The sentence of the notes that begins with a name and a colon, without these."""
    found = (re.search(rf"\b{name}: (.+?)(?:\. |\.$)", note) for note in notes)
    return next((x[1] for x in found if x), None)


def commits(folder: Path) -> dict[str, str]:
    """The last commit of each file of a folder, by its name, and whether it was changed since; none without git."""
    try:
        log = git(folder, "log", "--relative", "--name-only", "--format=commit %h of %cs", "--", ".")
        changed = set(git(folder, "diff", "--relative", "--name-only", "HEAD", "--", "."))
    except (OSError, subprocess.CalledProcessError):
        return {}
    found: dict[str, str] = {}
    commit = ""
    for line in filter(None, log):
        if line.startswith("commit "):
            commit = line.removeprefix("commit ")
        else:
            found.setdefault(line, commit)
    return {name: f"{x}, changed since" if name in changed else x for name, x in found.items()}
