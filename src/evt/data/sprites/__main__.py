"""python -m evt.data.sprites OUT: write generated videos out, to try the readers of real data sets on them.

python -m evt.data.sprites OUT                 an ILSVRC2015 tree: data=vid data.root=OUT
python -m evt.data.sprites OUT --kind action   mp4 clips and a csv as of Kinetics
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from evt.data.sprites import DISTURBANCES, MIXED, SPLITS, SpriteClips, SpriteVideos
from evt.data.sprites.writing import FORMATS, write_kinetics, write_vid
from evt.errors import DataError
from evt.files import sentence
from evt.interrupt import imports_are_done
from evt.version import __version__


def main(arguments: Sequence[str] | None = None) -> None:
    """Write what the command line says."""
    imports_are_done()
    parser = argparse.ArgumentParser(
        "python -m evt.data.sprites",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"evt {__version__}")
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=("detection", "action"), default="detection")
    parser.add_argument("--format", choices=FORMATS, default="png", help="of the frames for detection")
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--setting", choices=(*DISTURBANCES, MIXED), default=MIXED)
    parser.add_argument("--n", type=int, default=60, help="how many videos or clips")
    parser.add_argument("--n-frames", type=int, help="of each; 30 for detection, 16 for action")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="192 192, or 80 80")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    detection = chosen.kind == "detection"
    shared = {
        "n_frames": chosen.n_frames if chosen.n_frames is not None else 30 if detection else 16,
        "size": tuple(chosen.size or ((192, 192) if detection else (80, 80))),
        "seed": chosen.seed,
        "split": chosen.split,
        "setting": chosen.setting,
    }
    try:
        if detection:
            write_vid(SpriteVideos(chosen.n, **shared), chosen.out, chosen.split, chosen.format)
        else:
            write_kinetics(SpriteClips(chosen.n, **shared), chosen.out, chosen.split)
    except (DataError, OSError) as error:
        parser.exit(2, f"error: {sentence(error)}\n")


if __name__ == "__main__":
    main()
