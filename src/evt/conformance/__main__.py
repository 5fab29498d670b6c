"""python -m evt.conformance DIR [DIR ...]: replay conformance cases and compare with their recorded outputs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import evt
from evt.conformance.case import CaseError, SkippedError
from evt.conformance.replay import replay
from evt.interrupt import imports_are_done


def main() -> None:
    """Print a line for each case; exit status 1 if any fails."""
    imports_are_done()
    parser = argparse.ArgumentParser(prog="python -m evt.conformance", description=__doc__)
    parser.add_argument("--version", action="version", version=f"evt {evt.__version__}")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a case, or a folder of cases")
    parser.add_argument(
        "--tolerance", type=float, help="largest absolute error that passes, instead of the usual"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but torch finds no CUDA device here; it must be cpu")
    torch.backends.cudnn.allow_tf32 = False  # convolutions of 10 bits would be compared with ones of 24

    cases = [case for folder in args.folders for case in _cases(folder)]
    width = max(len(case.name) for case in cases)
    failed = skipped = 0
    for case in cases:
        try:
            result = replay(case, args.tolerance, args.device)
        except SkippedError as reason:
            skipped += 1
            print(f"{case.name:{width}}  skip  {reason}")
            continue
        except CaseError as error:
            failed += 1
            print(f"{case.name:{width}}  FAIL  {' '.join(str(error).split())}")
            continue
        failed += not result.passed
        counts = {True: "equal", False: "NOT EQUAL", None: "none recorded"}[result.counts_equal]
        verdict = "pass" if result.passed else "FAIL"
        print(f"{case.name:{width}}  {verdict}  largest error {result.error:.2e}  counts {counts}")
    run = len(cases) - skipped
    print(f"{run - failed} of {run} cases pass" + (f", and {skipped} could not be run" if skipped else ""))
    sys.exit(failed > 0)


def _cases(folder: Path) -> list[Path]:
    """The case in a folder, or those in its subfolders where it holds none itself."""
    below = sorted(case.parent for case in folder.glob("*/case.json"))
    return below if below and not (folder / "case.json").exists() else [folder]


if __name__ == "__main__":
    main()
