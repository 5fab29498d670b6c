"""Generated benchmarks: videos of textured sprites from a seed, nothing downloaded, nothing stored."""

from evt.data.sprites.detection import SpriteVideo, SpriteVideos
from evt.data.sprites.rendering import DISTURBANCES, MIXED
from evt.data.sprites.shapes import CLASSES

__all__ = ["CLASSES", "DISTURBANCES", "MIXED", "SpriteVideo", "SpriteVideos"]
