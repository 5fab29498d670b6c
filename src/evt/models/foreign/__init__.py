"""Vision Transformers of timm and transformers, whose blocks become Eventful ones."""

from evt.models.foreign.convert import Converted, convert

__all__ = ["Converted", "convert"]
