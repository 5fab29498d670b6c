"""Videos with their ground truth. Knows no model."""

from evt.data.opening import open_video

__all__ = ["open_video"]
