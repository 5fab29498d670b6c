"""python -m evt.compare: what runs differ in, and whether their difference in accuracy is more than chance.

python -m evt.compare runs/FIRST runs/SECOND [...]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from evt.cli import fail, parser_of
from evt.errors import DataError
from evt.evaluate.comparing import Compared, Run, compared, differences, unlike
from evt.interrupt import imports_are_done
from evt.report import columns

ENOUGH = 6
"""Videos or clips: with fewer, all differ in one direction more often than once in 20 times by chance alone."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare what the command line names."""
    imports_are_done()
    parser = parser_of("compare", __doc__)
    parser.add_argument(
        "run", nargs="+", type=Path, help="folders of runs, the first of which others are held against"
    )
    folders = parser.parse_args(arguments).run
    if len(folders) < 2:
        parser.error("one run was given; to compare takes two at least")
    try:
        runs = [Run.read(folder) for folder in folders]
        print(report(runs))
    except DataError as error:
        fail(str(error))


def report(runs: Sequence[Run]) -> str:
    """What is to be said of runs, for a terminal."""
    names = [chr(ord("A") + i) if i < 26 else str(i) for i in range(len(runs))]
    lines = [f"{name}: {run.folder}" for name, run in zip(names, runs, strict=True)]
    differ = [[name, *values] for name, values in differences(runs)]
    lines += [
        "",
        columns([["", *names], *differ]) if differ else "made of the same settings, code and machine",
    ]
    found = compared(runs)
    n = found[0].n if found else 0
    lines += ["", f"on the {n} video{'s' * (n != 1)} or clip{'s' * (n != 1)} that all have:"]
    lines += [columns([["", *names], *(_row(one) for one in found)])]
    for one in found:
        lines += [f"{one.name}, {name} less A: {verdict(one, i)}" for i, name in enumerate(names) if i]
    if others := unlike(runs):
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        lines.append(
            f"{len(others)} of these do not show the same in all runs, by the number, sizes or settings of their "
            f"frames, so that differences are of that, too: {', '.join(others[:3])}{more}"
        )
    left = [
        f"{name} {len(run.records) - n}"
        for name, run in zip(names, runs, strict=True)
        if len(run.records) > n
    ]
    return "\n".join([*lines, *([f"left out, since not all have them: {', '.join(left)}"] if left else [])])


def _row(one: Compared) -> list[str]:
    return [one.name, *(f"{estimate.value:.4g}" for estimate in one.estimates)]


def verdict(one: Compared, i: int) -> str:
    """By how much a run is above the first, and whether that is more than chance."""
    difference = one.estimates[i] - one.estimates[0]
    if difference.value == 0 and not difference.resamples.any():
        return "0, the same on each"
    if one.n < ENOUGH or math.isnan(difference.interval):
        fewer = "one video or clip" if one.n == 1 else f"{one.n} videos or clips"
        return f"{difference.value:+.3g}; on {fewer} chance cannot be told, which takes {ENOUGH}"
    more = "more" if abs(difference.value) > difference.interval else "not more"
    return f"{difference.value:+.3g} ±{difference.interval:.2g}, {more} than chance"


if __name__ == "__main__":
    main()
