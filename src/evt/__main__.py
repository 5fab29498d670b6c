"""python -m evt: the commands, a line each."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import evt


def commands() -> dict[str, str]:
    """What each command does, by its name; found in the first line of its module, so that nothing is imported."""
    found = {}
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        with path.open(encoding="utf-8") as file:
            line = re.match(r'"""python -m (evt\.[\w.]+)[^:]*: (.*?)\.?(?:""")?$', file.readline())
        if line:
            found[line[1]] = line[2]
    return found


def main() -> None:
    """Print the list."""
    found = commands()
    width = max(map(len, found))
    parser = argparse.ArgumentParser(
        "python -m evt",
        usage="python -m evt.COMMAND [SETTING=VALUE ...], or --help after a command for its settings",
        description=evt.__doc__,
        epilog="\n".join(f"python -m {name:{width}}  {does}" for name, does in found.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"evt {evt.__version__}")
    parser.parse_args()
    parser.print_help()


if __name__ == "__main__":
    main()
