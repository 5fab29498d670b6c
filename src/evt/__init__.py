"""Eventful Transformers: recompute only the tokens of a video that changed (Dutson, Li, Gupta, ICCV 2023)."""

__version__ = "0.1.0"
