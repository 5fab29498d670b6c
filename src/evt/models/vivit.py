"""Factorised ViViT: a spatial Transformer for each moment of a video, and a temporal one over its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from evt.data.actions import AnyClip, Frames
from evt.errors import ConfigError
from evt.eventful import Block, Blocks, Policy, States, Stream, Variant, init_weights
from evt.eventful.counting import Linear, add
from evt.models.checkpoints import read_checkpoint
from evt.models.views import Views
from evt.models.vit import check_ratio, check_shape, check_whole
from evt.models.vivit_weights import load_fine_tuned, load_published, published
from evt.tokens.run_length import checked_tubelet

# Of pixels in [0, 1], the same for red, green and blue, as the published ViViT-B was trained.
PIXEL_MEAN = 0.45
PIXEL_STD = 0.225


class TubeletEmbed(nn.Module):
    """Map each tubelet, a square patch over some successive frames, to a token by one linear transform."""

    def __init__(self, tubelet: tuple[int, int, int], dim: int, in_chans: int = 3) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_chans, dim, kernel_size=tubelet, stride=tubelet)

    def forward(self, x: Tensor) -> Tensor:
        """Embed frames, (B, t, C, H, W) to (B, steps, N, D). Not counted, as in the paper."""
        return self.proj(x.transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)


class SubModel(nn.Module):
    """A Transformer with a class token: tokens in, the class token's output out (ViViT's two sub-models).

    Args:
        n_tokens: N, without the class token.
        dim, depth, num_heads, mlp_ratio: width D of a token, number of blocks, and their shape.
    """

    def __init__(self, n_tokens: int, dim: int, depth: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + n_tokens, dim))
        self.blocks = Blocks(Block(dim, num_heads, mlp_ratio, num_prefix_tokens=1) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def states(self, variant: Variant) -> States:
        """Empty states of its blocks."""
        return self.blocks.states(variant)

    def forward(self, x: Tensor, states: States | None = None, policy: Policy | None = None) -> Tensor:
        """Run embedded tokens, (B, N, D) to (B, D); densely without states."""
        return self.norm(self.run_blocks(x, states, policy)[:, 0])

    def run_blocks(self, x: Tensor, states: States | None = None, policy: Policy | None = None) -> Tensor:
        """Run embedded tokens to what the last block makes of all of them, (B, N, D) to (B, 1 + N, D).

        Raises:
            ValueError: the tokens are of another shape.
        """
        check_shape(x, ("B", self.pos_embed.shape[1] - 1, self.pos_embed.shape[2]))
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = add(x, self.pos_embed)
        return self.blocks(x, states, policy)


class ViViT(nn.Module):
    """The factorised ViViT-B of the paper (section 5.2; Arnab et al. 2021, model 2).

    The spatial sub-model runs step by step over a view, Eventful or not, and the temporal one, always dense, over
    the outputs of all steps. The views of a video are one batch of streams.

    Args:
        size: side of a view in pixels.
        classes: of the classifier; 97 verbs (EPIC-Kitchens 100) or 400 actions (Kinetics-400).
        temporal_stride: from frame to frame of a view; 1 for EPIC-Kitchens at 30 frames a second, 2 for Kinetics;
            None spreads the frames over the video.
        view_frames, temporal_views, spatial_views: see `Views`.
        tubelet: frames, rows and columns of pixels that make a token.
        dim, num_heads, mlp_ratio: width D of a token, and the shape of a block.
        spatial_depth, temporal_depth: blocks of the two sub-models.

    Raises:
        ValueError: a number is not whole and at least 1, mlp_ratio is not above 0, a view is not of whole tubelets,
            or the heads do not divide D.
    """

    sees = "steps"

    def __init__(
        self,
        size: PositiveInt = 224,
        classes: PositiveInt = 400,
        temporal_stride: PositiveInt | None = 2,
        view_frames: PositiveInt = 32,
        temporal_views: PositiveInt = 4,
        spatial_views: PositiveInt = 3,
        tubelet: Sequence[int] = (2, 16, 16),
        dim: PositiveInt = 768,
        num_heads: PositiveInt = 12,
        mlp_ratio: PositiveFloat = 4,
        spatial_depth: PositiveInt = 12,
        temporal_depth: PositiveInt = 4,
    ) -> None:
        super().__init__()
        self.views = Views(view_frames, size, temporal_stride, temporal_views, spatial_views)
        frames, height, width = checked_tubelet(tubelet)
        if size % height or size % width:
            raise ValueError(
                f"model.size is {size}; it must be a multiple of the tubelet's {height} by {width} pixels"
            )
        if view_frames % frames:
            raise ValueError(
                f"model.view_frames is {view_frames}; it must be a multiple of the tubelet's {frames} frames"
            )
        check_whole(
            classes=classes,
            dim=dim,
            num_heads=num_heads,
            spatial_depth=spatial_depth,
            temporal_depth=temporal_depth,
        )
        check_ratio(mlp_ratio)
        self.size = size
        self.steps = view_frames // frames
        self.patch_embed = TubeletEmbed((frames, height, width), dim)
        self.grid = (size // height, size // width)
        self.spatial = SubModel(self.grid[0] * self.grid[1], dim, spatial_depth, num_heads, mlp_ratio)
        self.temporal = SubModel(self.steps, dim, temporal_depth, num_heads, mlp_ratio)
        self.head = Linear(dim, classes)

    @property
    def n_tokens(self) -> int:
        """Tokens of the spatial sub-model at one step, the class token among them: 401 at 320, 197 at 224."""
        return self.spatial.pos_embed.shape[1]

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
        """Load the published weights and, over them, fine-tuned ones if there are any.

        Returns:
            What was left out, a sentence each.

        Raises:
            CheckpointError: see `load_published` and `load_fine_tuned`.
        """
        path, *fine_tuned = paths
        left_out = load_published(self, read_checkpoint(path, allow_pickle), path)
        for path in fine_tuned:
            load_fine_tuned(self, read_checkpoint(path), path)
        return left_out

    def published(self) -> dict[str, Tensor]:
        """The parameters under the names of the published checkpoints."""
        return published(self)

    def check(self, variant: Variant) -> None:
        """Refuse a variant that pools or moves what it keeps.

        Raises:
            ConfigError: it does.
        """
        if variant.move:
            raise ConfigError(
                "variant.move is true, but what ViViT's stream makes of a step is one token, of no place; it must be "
                "false"
            )
        if variant.pool > 1:
            raise ConfigError(
                f"variant.pool is {variant.pool}, but ViViT's tokens form no grid, since one of them is the class "
                "token; it must be 1, as in base, temporal, tokenwise and stgt"
            )

    def stream(self, variant: Variant, policy: Policy | None = None) -> Stream:
        """A new stream through the spatial sub-model, of as many views as it is given."""
        return Stream(self.spatial, variant, policy)

    def blank(self) -> Tensor:
        """A step of one view as a stream takes it, all zeros, (1, N, D)."""
        weight = self.head.weight
        return weight.new_zeros(1, self.n_tokens - 1, weight.shape[1])

    def inputs(self, clip: AnyClip) -> Iterator[Tensor]:
        """What a stream takes of a clip: the embedded tokens of all views at each step, (V, N, D).

        Raises:
            DataError: see `Views.of`.
        """
        views = self.normalise(self.views.of(clip))
        # A step at a time, so that the tokens of all steps are never in memory together.
        yield from (self.patch_embed(x).squeeze(1) for x in self.steps_of(views))

    def decode(self, outputs: Sequence[Tensor], clip: AnyClip | None = None) -> Tensor:
        """The probabilities of a clip's classes, (classes,), from the stream's outputs of all steps.

        They are the softmax of the logits' mean over the views.
        """
        return self.classify(torch.stack(list(outputs), dim=1)).mean(dim=0).softmax(dim=-1)

    def preprocess(self, clip: Frames) -> Tensor:
        """Cut a video into normalised views, (V, t, 3, size, size) float32 on the model's device.

        Raises:
            ValueError: see `Views.cut`.
        """
        return self.normalise(self.views.cut(clip))

    def normalise(self, views: Tensor) -> Tensor:
        """Normalise what `Views.cut` gave, in place, and put it on the model's device."""
        return views.sub_(PIXEL_MEAN).div_(PIXEL_STD).to(self.head.weight.device)

    def run_spatial(self, views: Tensor, variant: Variant, policy: Policy | None = None) -> Tensor:
        """Run the spatial sub-model over views, each a fresh stream, (V, t, 3, size, size) to (V, steps, D).

        Without gradients. The state that V streams keep is dropped at the end.
        """
        stream = self.stream(variant, policy)
        with torch.no_grad():
            # A step at a time, so that the tokens of all steps are never in memory together.
            outputs = [stream(self.patch_embed(x).squeeze(1)) for x in self.steps_of(views)]
            return torch.stack(outputs, dim=1)

    def steps_of(self, views: Tensor) -> Sequence[Tensor]:
        """Cut views into the frames of each step, (V, frames of a tubelet, 3, H, W) each."""
        return views.split(views.shape[1] // self.steps, dim=1)

    def features(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run views densely, (B, t, 3, size, size), to all that there is to learn from.

        Returns:
            Logits (B, classes), what the spatial sub-model makes of the tokens, (K, D), class tokens apart, and whose
            these are, (B, steps, rows, columns) bool: all.
        """
        tokens = self.patch_embed(views)  # (B, steps, N, D)
        out = self.spatial.norm(self.spatial.run_blocks(tokens.flatten(0, 1))).unflatten(0, tokens.shape[:2])
        everywhere = torch.ones(len(views), self.steps, *self.grid, dtype=torch.bool, device=views.device)
        return self.classify(out[:, :, 0]), out[:, :, 1:].flatten(0, 2), everywhere

    def classify(self, spatial: Tensor) -> Tensor:
        """Run the temporal sub-model and the classifier, (V, steps, D) to the logits of each view, (V, classes)."""
        return self.head(self.temporal(spatial))

    @torch.no_grad()
    def predict_views(self, views: Tensor, variant: Variant, policy: Policy | None = None) -> Tensor:
        """The probabilities of a video's classes from its views, (V, t, 3, size, size) to (classes,)."""
        return self.decode(self.run_spatial(views, variant, policy).unbind(1))
