"""The Eventful mechanism (paper, section 4). It imports torch and nothing else of this project."""

from evt.eventful.batch import Batch
from evt.eventful.block import Block, Blocks, BlockState, States, init_weights
from evt.eventful.counting import KINDS, count_ops
from evt.eventful.following import Latency, Operations, Scheduled
from evt.eventful.policy import (
    Budget,
    Every,
    Past,
    Policy,
    Refresh,
    Selection,
    Threshold,
    Thresholds,
    TopR,
)
from evt.eventful.rotary import Rotary
from evt.eventful.selectors import Change, Codec, Regions, Rollout, Similarity
from evt.eventful.stream import Stream, state_bytes
from evt.eventful.variant import VARIANTS, Variant

__all__ = [
    "KINDS",
    "VARIANTS",
    "Batch",
    "Block",
    "BlockState",
    "Blocks",
    "Budget",
    "Change",
    "Codec",
    "Every",
    "Latency",
    "Operations",
    "Past",
    "Policy",
    "Refresh",
    "Regions",
    "Rollout",
    "Rotary",
    "Scheduled",
    "Selection",
    "Similarity",
    "States",
    "Stream",
    "Threshold",
    "Thresholds",
    "TopR",
    "Variant",
    "count_ops",
    "init_weights",
    "state_bytes",
]
