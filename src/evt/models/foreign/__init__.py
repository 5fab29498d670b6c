"""Vision Transformers of timm and transformers, whose blocks become Eventful ones."""

from evt.models.foreign.convert import Converted, convert
from evt.models.foreign.streams import ModelStream

__all__ = ["Converted", "ModelStream", "convert"]
