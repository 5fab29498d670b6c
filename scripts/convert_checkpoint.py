"""Rewrite a checkpoint (.pth, .pt or .pkl) as safetensors, its parameters under the names they have."""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
import sys
from pathlib import Path

from evt.errors import CheckpointError
from evt.files import check_writable, sentence
from evt.models.checkpoints import classes_in, read_checkpoint, read_class_names, save_checkpoint


def main() -> None:
    """Convert one file; exit status 2 and one sentence where that cannot be done."""
    imports_are_done()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="IN", help="a .pth, .pt, .pkl or .safetensors")
    parser.add_argument("target", type=Path, metavar="OUT", help="the .safetensors to write")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="also read a pickle of more than arrays, which can run any code: only for files that you trust",
    )
    parser.add_argument(
        "--class-names", type=Path, metavar="FILE", help="the names of its classes, one a line"
    )
    args = parser.parse_args()
    try:
        check_writable(args.target)
        tensors = read_checkpoint(args.source, args.allow_pickle)
        names = read_class_names(args.class_names) if args.class_names else classes_in(args.source)
        save_checkpoint(tensors, args.target, names)
    except (CheckpointError, OSError) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        sys.exit(2)
    numbers = sum(x.numel() for x in tensors.values())
    print(f"{args.target}: {len(tensors)} parameters, {numbers / 1e6:.1f} million numbers")


if __name__ == "__main__":
    main()
