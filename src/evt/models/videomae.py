"""VideoMAE's Vision Transformer for clips (Tong et al. 2022), on all tokens of a clip or on fewer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from evt.data.actions import AnyClip, Frames
from evt.errors import ConfigError
from evt.eventful import VARIANTS, Block, Variant, init_weights
from evt.eventful.counting import Linear, add
from evt.models.checkpoints import load_tensors, read_checkpoint
from evt.models.videomae_weights import official_names
from evt.models.views import Views
from evt.models.vit import check_ratio, check_whole
from evt.models.vivit import TubeletEmbed
from evt.tokens import Packed, Reduction
from evt.tokens.packed import attend_packed
from evt.tokens.run_length import checked_tubelet

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
ALL_TOKENS = Reduction()
LENGTH_EMBEDDING = "length_embed"
"""The parameter that VideoMAE's official weights do not have, and RLT's do."""


class VideoMAE(nn.Module):
    """VideoMAE ViT-B as fine-tuned for classification; `published` has its parameters as checkpoints hold them.

    Its blocks are those of the other networks, run over clips laid end to end, each of which attends to itself.

    Args:
        size: side of a view in pixels.
        classes: of the classifier.
        temporal_stride: from frame to frame of a view; 4 for Kinetics-400, None spreads the frames over the
            video, for Something-Something v2.
        view_frames, temporal_views, spatial_views: see `Views`.
        tubelet: frames, rows and columns of pixels that make a token.
        dim, depth, num_heads, mlp_ratio: width D of a token, number of blocks, and their shape.
        length_embedding: learn an embedding of run lengths; zero at first.

    Raises:
        ValueError: a number is not whole and at least 1, mlp_ratio is not above 0, a view is not of whole tubelets,
            or the heads do not divide D.
    """

    sees = "clips"

    def __init__(
        self,
        size: PositiveInt = 224,
        classes: PositiveInt = 400,
        temporal_stride: PositiveInt | None = 4,
        view_frames: PositiveInt = 16,
        temporal_views: PositiveInt = 5,
        spatial_views: PositiveInt = 3,
        tubelet: Sequence[int] = (2, 16, 16),
        dim: PositiveInt = 768,
        depth: PositiveInt = 12,
        num_heads: PositiveInt = 12,
        mlp_ratio: PositiveFloat = 4,
        length_embedding: bool = False,
    ) -> None:
        super().__init__()
        self.views = Views(view_frames, size, temporal_stride, temporal_views, spatial_views)
        check_whole(classes=classes, dim=dim, depth=depth, num_heads=num_heads)
        check_ratio(mlp_ratio)
        t, h, w = checked_tubelet(tubelet)
        for name, length, part in (("view_frames", view_frames, t), ("size", size, h), ("size", size, w)):
            if length % part:
                raise ValueError(f"model.{name} is {length}; it must be a multiple of the tubelet's {part}")
        self.size, self.view_frames, self.tubelet = size, view_frames, (t, h, w)
        self.steps = view_frames // t
        self.patch_embed = TubeletEmbed(self.tubelet, dim)
        self.pos_embed: Tensor
        self.grid = (size // h, size // w)
        n_tokens = self.steps * self.grid[0] * self.grid[1]
        self.register_buffer("pos_embed", sine_cosine(n_tokens, dim), persistent=False)
        # As in RLT's code: (1, steps, D), a row for each length from 1 on.
        self.length_embed = nn.Parameter(torch.zeros(1, self.steps, dim)) if length_embedding else None
        blocks = [Block(dim, num_heads, mlp_ratio) for _ in range(depth)]
        for block in blocks:
            nn.init.zeros_(block.attn.qkv.bias)
            block.attn.qkv.bias.register_hook(_of_no_keys)
        self.blocks = nn.ModuleList(blocks)
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = Linear(dim, classes)

    @property
    def n_tokens(self) -> int:
        """Tokens of a view, all of them."""
        return len(self.pos_embed)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def n_classes(self) -> int:
        """Of the classifier."""
        return self.head.out_features

    @property
    def input_numbers(self) -> int:
        """How many numbers the views of a clip are, which are in memory together."""
        return self.views.numbers

    def initialise(self) -> None:
        """Draw the weights."""
        self.apply(init_weights)

    def load(self, paths: Sequence[str], allow_pickle: bool = False) -> list[str]:
        """Load a checkpoint under its published names, or a classifier's of transformers.

        Returns:
            What it holds and the model has no use for, and what it lacks, a sentence each.

        Raises:
            CheckpointError: see `load_tensors`.
        """
        (path,) = paths
        tensors = official_names(read_checkpoint(path, allow_pickle))
        said = []
        if self.length_embed is not None and LENGTH_EMBEDDING not in tensors:
            # Trained without one, as the official models are: it is zero, which changes nothing, until it is trained.
            tensors[LENGTH_EMBEDDING] = self.length_embed.detach()
            said = [f"zero, since it is not in the file: {LENGTH_EMBEDDING}"]
        left_out = load_tensors(self.published(), tensors, path)
        return [*said, *(f"not loaded: {name}" for name in left_out)]

    def published(self) -> dict[str, Tensor]:
        """See the function of this name."""
        return published(self)

    def check(self, reduction: Reduction | Variant | None) -> None:
        """Refuse a reduction that cannot be done with this model.

        Raises:
            ConfigError: it cannot.
        """
        try:
            _checked(reduction).check(self)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def preprocess(self, clip: Frames) -> Tensor:
        """Cut a video into normalised views, (V, T, 3, size, size) float32 on the model's device.

        Raises:
            ValueError: see `Views.cut`.
        """
        return self.normalise(self.views.cut(clip))

    def normalise(self, views: Tensor) -> Tensor:
        """Normalise what `Views.cut` gave, and put it on the model's device."""
        views = views.to(self.head.weight.device)
        mean, std = (torch.tensor(x, device=views.device).view(3, 1, 1) for x in (PIXEL_MEAN, PIXEL_STD))
        return (views - mean) / std

    def share_kept(self, views: Tensor, reduction: Reduction | None) -> float | None:
        """The share of the tokens of views that the blocks see; None where the reduction drops none before them."""
        keep = _checked(reduction).keep(views, self.tubelet)
        return None if keep is None else float(keep.float().mean())

    def forward(self, views: Tensor, reduction: Reduction | None = None) -> Tensor:
        """The logits of views, (V, T, 3, size, size) as from `preprocess` to (V, classes).

        Raises:
            TypeError, ValueError: see `encode`.
        """
        tokens, _ = self.encode(views, reduction)
        return self.classify(tokens.means())

    def encode(self, views: Tensor, reduction: Reduction | None = None) -> tuple[Packed, Tensor | None]:
        """Run the blocks over the tokens that are kept; without a reduction over all.

        Returns:
            What the last block makes of them, view after view; and which the first one saw, (V, N) bool, or None
            for all.

        Raises:
            TypeError: the reduction is none.
            ValueError: the views are of another shape than the model's, or the reduction cannot be done with it.
        """
        reduction = _checked(reduction)
        tokens, keep = self._first_tokens(views, reduction)
        return self.run_blocks(tokens, reduction), keep

    def trace(self, views: Tensor, reduction: Reduction | None = None) -> list[Tensor]:
        """Which tokens became one in the blocks.

        Returns:
            After each block, for each token of the views, (V, N) int64, by which of its view's tokens it is stood
            for, counted from 0 in the order that they have there; -1 where by none, since it was dropped.

        Raises:
            TypeError, ValueError: see `encode`.
        """
        reduction = _checked(reduction)
        tokens, keep = self._first_tokens(views, reduction)
        seen = self._seen(views, keep)
        view, traced = seen.nonzero()[:, 0], []  # of each token that the first block sees
        for number in range(self.depth):
            tokens = self.run_block(number, tokens, reduction)
            source = tokens.sources()
            starts = torch.tensor([0, *tokens.lengths[:-1]], device=source.device).cumsum(0)
            places = torch.full(seen.shape, -1, device=source.device)
            places[seen] = torch.where(source < 0, -1, source - starts[view])
            traced.append(places)
        return traced

    def _seen(self, views: Tensor, keep: Tensor | None) -> Tensor:
        """Which tokens of views the first block saw, (V, N) bool."""
        if keep is None:
            return torch.ones(len(views), self.n_tokens, dtype=torch.bool, device=views.device)
        return keep

    def _first_tokens(self, views: Tensor, reduction: Reduction) -> tuple[Packed, Tensor | None]:
        """What the first block gets; see `encode` for the rest."""
        reduction.check(self)
        x = self.embed(views)
        keep = reduction.keep(views, self.tubelet)
        if keep is None:
            return Packed(x.flatten(0, 1), [x.shape[1]] * len(x)), None
        return Packed(reduction.embed(x[keep], keep, self), keep.sum(1).tolist()), keep

    def run_blocks(self, tokens: Packed, reduction: Reduction = ALL_TOKENS) -> Packed:
        """Run all blocks, whose attention is each clip's own."""
        for number in range(self.depth):
            tokens = self.run_block(number, tokens, reduction)
        return tokens

    def run_block(self, number: int, tokens: Packed, reduction: Reduction) -> Packed:
        """Run a block by its number, from 0 on."""
        block: Any = self.blocks[number]
        attn, (x, lengths, size, _) = block.attn, tokens
        qkv = attn.qkv(block.norm1(x)).unflatten(-1, (3, attn.num_heads, -1))  # (K, 3, H, d)
        q, k, v = qkv.unbind(-3)  # (K, H, d) each
        y = attend_packed(q, k, v, lengths, size if reduction.proportional else None)
        x = add(_dropped(block, attn.proj(y.flatten(1)), lengths), x)
        tokens = reduction.between(tokens._replace(x=x), qkv, number, self.depth)
        y = _dropped(block, block.mlp(block.norm2(tokens.x)), tokens.lengths)
        return tokens._replace(x=add(y, tokens.x))

    def features(self, views: Tensor, reduction: Reduction | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Run views, (B, T, 3, size, size), to all that there is to learn from.

        Returns:
            Logits (B, classes), what the blocks make of the tokens that they saw, (K, D), and whose these are,
            (B, steps, rows, columns) bool. Where tokens became one, each of them has what is made of that.

        Raises:
            TypeError, ValueError: see `encode`.
        """
        tokens, keep = self.encode(views, reduction)
        seen, source = self._seen(views, keep), tokens.sources()
        held = source >= 0
        seen = seen.masked_scatter(seen, held).unflatten(1, (self.steps, *self.grid))
        return self.classify(tokens.means()), self.fc_norm(tokens.x)[source[held]], seen

    def classify(self, pooled: Tensor) -> Tensor:
        """The logits of pooled tokens, (V, D) to (V, classes)."""
        return self.head(self.fc_norm(pooled))

    def embed(self, views: Tensor) -> Tensor:
        """What the first block gets of all tokens, (V, T, 3, size, size) to (V, N, D).

        Raises:
            ValueError: see `encode`.
        """
        expected = (self.view_frames, 3, self.size, self.size)
        if views.ndim != 5 or tuple(views.shape[1:]) != expected or len(views) == 0:
            sizes = ", ".join(map(str, expected))
            raise ValueError(
                f"clips have shape {tuple(views.shape)}; it must be (B, {sizes}), with B at least 1"
            )
        return add(self.patch_embed(views).flatten(1, 2), self.pos_embed)  # (V, N, D)

    def stream(self, reduction: Reduction | Variant | None, policy: None = None) -> ClipByClip:
        """What runs the views of one clip after those of another; None, and the variant base, are the dense model.

        Raises:
            TypeError: the reduction is none.
        """
        return ClipByClip(self, _checked(reduction))

    def inputs(self, clip: AnyClip) -> Iterator[Tensor]:
        """What a stream takes of a clip: all its views, (V, T, 3, size, size), as one.

        Raises:
            DataError: see `Views.of`.
        """
        yield self.normalise(self.views.of(clip))

    def decode(self, outputs: Sequence[Tensor], clip: AnyClip | None = None) -> Tensor:
        """The probabilities of a clip's classes, (classes,), from the logits of its views.

        They are the softmax of the logits' mean over the views, as ViViT's.
        """
        (logits,) = outputs
        return logits.mean(dim=0).softmax(dim=-1)


class ClipByClip:
    """A model of whole clips where others have a `Stream`: nothing is kept from one clip to the next.

    Args:
        model: the weights.
        reduction: which tokens it looks at.
    """

    nbytes = 0

    def __init__(self, model: VideoMAE, reduction: Reduction) -> None:
        self.model = model
        self.reduction = reduction
        self._views: Tensor | None = None

    def reset(self) -> None:
        """There is nothing to forget."""

    @torch.no_grad()
    def __call__(self, views: Tensor) -> Tensor:
        """The logits of views, see `VideoMAE.forward`."""
        self._views = views
        return self.model(views, self.reduction)

    @property
    def kept(self) -> float | None:
        """The share of the last clip's tokens that the blocks saw; None where none is dropped before them."""
        return None if self._views is None else self.model.share_kept(self._views, self.reduction)


def sine_cosine(n: int, dim: int) -> Tensor:
    """Sinusoidal positions of a sequence (Vaswani et al. 2017, section 3.5), (n, dim)."""
    pairs = 2 * (torch.arange(dim, dtype=torch.float64) // 2)
    angles = torch.arange(n, dtype=torch.float64)[:, None] / 10000 ** (pairs / dim)
    return torch.where(torch.arange(dim) % 2 == 0, angles.sin(), angles.cos()).float()


def published(model: VideoMAE) -> dict[str, Tensor]:
    """The parameters under the names of the published checkpoints, as views: what is copied there is the model's.

    Queries and values have biases of their own in them, `q_bias` and `v_bias`, and keys have none.
    """
    tensors = model.state_dict()
    for name in [name for name in tensors if name.endswith("qkv.bias")]:
        bias, prefix = tensors.pop(name), name.removesuffix("qkv.bias")
        tensors[f"{prefix}q_bias"], _, tensors[f"{prefix}v_bias"] = bias.chunk(3)
    return tensors


def _checked(reduction: Reduction | Variant | None) -> Reduction:
    """Refuse a name in the place of a reduction, which would otherwise be an error within a block."""
    if reduction is None or reduction == VARIANTS["base"]:
        return ALL_TOKENS
    if not isinstance(reduction, Reduction):
        raise TypeError(f"reduction is {reduction!r}; it must be a RunLength, another Reduction or None")
    return reduction


def _dropped(block: Block, y: Tensor, lengths: Sequence[int]) -> Tensor:
    """What a branch of a block gives, (K, D), but for the clips whose path is dropped in training."""
    if block.drop_path is None:
        return y
    of_clips = block.drop_path(y.new_ones(len(lengths), 1))
    return y * of_clips.repeat_interleave(torch.tensor(lengths, device=y.device), 0)


def _of_no_keys(gradient: Tensor) -> Tensor:
    """A gradient of `qkv.bias` without the keys'.

    That is zero but for rounding, since softmax is the same with any bias of keys, and AdamW makes steps of rounding.
    """
    q, k, v = gradient.chunk(3)
    return torch.cat([q, torch.zeros_like(k), v])
