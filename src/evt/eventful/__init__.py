"""The Eventful mechanism (paper, section 4). It imports torch and nothing else of this project."""

from evt.eventful.block import Block, BlockState, init_weights
from evt.eventful.counting import KINDS, count_ops
from evt.eventful.policy import Every, Policy, Selection, Threshold, TopR
from evt.eventful.stream import Stream
from evt.eventful.variant import VARIANTS, Variant

__all__ = [
    "KINDS",
    "VARIANTS",
    "Block",
    "BlockState",
    "Every",
    "Policy",
    "Selection",
    "Stream",
    "Threshold",
    "TopR",
    "Variant",
    "count_ops",
    "init_weights",
]
