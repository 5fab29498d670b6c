"""Generated benchmarks: videos of textured sprites from a seed, nothing downloaded, nothing stored.

`SpriteVideos` for detection, `SpriteClips` for action recognition. `python -m evt.data.sprites OUT` writes them out
in the layouts of ImageNet VID and Kinetics.
"""

from evt.data.sprites.action import ACTIONS, SpriteClip, SpriteClips
from evt.data.sprites.detection import SpriteVideo, SpriteVideos
from evt.data.sprites.settings import DISTURBANCES, MIXED, SPLITS
from evt.data.sprites.shapes import CLASSES

__all__ = [
    "ACTIONS",
    "CLASSES",
    "DISTURBANCES",
    "MIXED",
    "SPLITS",
    "SpriteClip",
    "SpriteClips",
    "SpriteVideo",
    "SpriteVideos",
]
