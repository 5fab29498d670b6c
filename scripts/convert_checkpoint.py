"""Rewrite a checkpoint (.pth, .pt or .pkl) as safetensors, its parameters under the names they have."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evt.models.checkpoints import CheckpointError, read_checkpoint, save_checkpoint


def main() -> None:
    """Convert one file; exit status 2 and one sentence where that cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="IN", help="a .pth, .pt, .pkl or .safetensors")
    parser.add_argument("target", type=Path, metavar="OUT", help="the .safetensors to write")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="also read a pickle of more than arrays, which can run any code: only for files that you trust",
    )
    args = parser.parse_args()
    try:
        tensors = read_checkpoint(args.source, args.allow_pickle)
        save_checkpoint(tensors, args.target)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    numbers = sum(x.numel() for x in tensors.values())
    print(f"{args.target}: {len(tensors)} parameters, {numbers / 1e6:.1f} million numbers")


if __name__ == "__main__":
    main()
