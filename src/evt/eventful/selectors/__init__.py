"""Policies that select once a frame for the whole network, each in a file of its own.

They are rivals of the paper, for variants with the gate "frame".
"""

from evt.eventful.selectors.change import Change
from evt.eventful.selectors.codec import Codec
from evt.eventful.selectors.regions import Regions
from evt.eventful.selectors.rollout import Rollout
from evt.eventful.selectors.similarity import Similarity

__all__ = ["Change", "Codec", "Regions", "Rollout", "Similarity"]
