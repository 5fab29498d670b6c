"""A window on the screen, by OpenCV where that is installed."""

from __future__ import annotations

from types import TracebackType

import numpy as np
from PIL import Image

from evt.errors import ConfigError


class Window:
    """A window that shows pictures, until q or Escape is pressed.

    name: its title.

    Raises:
        ConfigError: OpenCV is not installed, or there is no screen.
    """

    def __init__(self, name: str) -> None:
        try:
            import cv2
        except ImportError as error:
            raise ConfigError(
                "out is window, which needs OpenCV: pip install opencv-python; or give a file that ends in .mp4"
            ) from error
        self.name, self.n_frames, self.closed = name, 0, False
        self._cv2 = cv2
        try:
            cv2.namedWindow(name, cv2.WINDOW_AUTOSIZE)
        except cv2.error as error:
            raise ConfigError(
                "out is window, and OpenCV opens none here: it needs a screen, and a build with windows "
                "(opencv-python, not opencv-python-headless); or give a file that ends in .mp4"
            ) from error

    def add(self, picture: Image.Image) -> None:
        """Show the next picture, RGB."""
        self._cv2.imshow(self.name, np.asarray(picture)[..., ::-1])
        self.n_frames += 1
        self.closed = self._cv2.waitKey(1) & 0xFF in (ord("q"), 27)

    def __enter__(self) -> Window:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cv2.destroyWindow(self.name)
