"""Which tokens of a clip a model of clips looks at: run-length tokenization and its rivals."""

from evt.tokens.adaptive_sampling import AdaptiveSampling
from evt.tokens.merging import Merge
from evt.tokens.packed import Packed
from evt.tokens.random_drop import RandomDrop
from evt.tokens.reduction import Reduction
from evt.tokens.run_length import RunLength

__all__ = ["REDUCTIONS", "AdaptiveSampling", "Merge", "Packed", "RandomDrop", "Reduction", "RunLength"]

REDUCTIONS: dict[str, type[Reduction]] = {
    "rlt": RunLength,
    "random_drop": RandomDrop,
    "token_merging": Merge,
    "ats": AdaptiveSampling,
}
"""The variants of models of whole clips that look at fewer tokens, and the policy of each."""
