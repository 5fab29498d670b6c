"""The version, for those at the bottom of the house too."""

__version__ = "0.1.0"
