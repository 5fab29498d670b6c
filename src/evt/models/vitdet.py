"""ViTDet: frames in, objects out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from evt.data.video import Boxes, Frame
from evt.errors import ConfigError
from evt.eventful import Policy, Stream, Variant, init_weights
from evt.models.boxes import Detections, Proposals
from evt.models.checkpoints import load_backbone, load_checkpoint
from evt.models.frame_model import FrameModel
from evt.models.letterbox import Box, check_picture
from evt.models.pyramid import add_pyramid, pyramid
from evt.models.roi_heads import ROIHeads
from evt.models.rpn import RPN
from evt.models.vit import ViT, check_whole

# Mean and deviation over ImageNet of the red, green and blue channel in [0, 255], as detectron2 uses them.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class ViTDet(FrameModel):
    """The ViTDet-B of the paper (section 5.1), under the parameter names of its published checkpoints.

    Args:
        backbone: the Transformer, which is resized to `size`.
        size: side of the square, in pixels, that a frame is resized and padded to.
        n_classes: of objects.
        fpn_channels: of each level of the pyramid.
        fc_dim: width of the linear layer of the box head.
        pre_nms_top, post_nms_top: see `RPN`.
        score_threshold, max_detections: see `ROIHeads`.
        samples_per_image: proposals that the box head is trained on in each picture.
        short_edge: the most that the short edge of a resized frame may measure, as a share of size.
        detector: builtin, or detectron2 for detectron2's own RPN and ROI heads on the same parameters.

    Raises:
        ValueError: size is not a positive multiple of the patch size, another setting cannot be (see also `RPN` and
            `ROIHeads`), or detectron2 is not installed.
    """

    predicts = "objects"
    pixel_std: Tensor

    def __init__(
        self,
        backbone: ViT,
        size: PositiveInt = 1024,
        n_classes: PositiveInt = 30,
        fpn_channels: PositiveInt = 256,
        fc_dim: PositiveInt = 1024,
        pre_nms_top: int = 1000,
        post_nms_top: int = 1000,
        score_threshold: float = 0.05,
        max_detections: int = 100,
        samples_per_image: int = 512,
        short_edge: float = 0.625,
        detector: Literal["builtin", "detectron2"] = "builtin",
    ) -> None:
        super().__init__()
        patch_size = backbone.patch_size
        check_whole(fpn_channels=fpn_channels, fc_dim=fc_dim, n_classes=n_classes)
        if not isinstance(size, int) or size < patch_size or size % patch_size:
            raise ValueError(
                f"model.size is {size!r}; it must be a positive multiple of the patch size, {patch_size}"
            )
        if not 0 < short_edge <= 1:
            raise ValueError(f"model.short_edge is {short_edge}; it must be above 0 and at most 1")
        self.size = size
        self.short_edge = short_edge
        self.n_classes = n_classes
        backbone.resize((size // patch_size, size // patch_size))
        self.backbone = nn.Module()
        self.backbone.net = backbone
        add_pyramid(self.backbone, backbone.dim, fpn_channels)
        if detector == "detectron2":
            from evt.models import detectron2_heads

            rpn, roi_heads = detectron2_heads.classes()
        else:
            rpn, roi_heads = RPN, ROIHeads
        self.proposal_generator: RPN = rpn(fpn_channels, pre_nms_top, post_nms_top, patch_size)
        self.roi_heads: ROIHeads = roi_heads(
            fpn_channels, fc_dim, n_classes, score_threshold, max_detections, patch_size, samples_per_image
        )
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    @property
    def net(self) -> ViT:
        """The Transformer, which `stream` runs frame by frame."""
        return self.backbone.net  # type: ignore[return-value]

    @property
    def n_tokens(self) -> int:
        """Tokens of a frame."""
        return self.net.grid[0] * self.net.grid[1]

    def initialise(self) -> None:
        """Draw the Transformer's weights; the detector's layers draw theirs as they are built."""
        self.net.apply(init_weights)

    def load(self, paths: Sequence[str], allow_pickle: bool = False) -> list[str]:
        """Load a checkpoint; see `load_checkpoint` for what is raised.

        Returns:
            What it holds and the model has no use for, a sentence each.
        """
        (path,) = paths
        return [f"not loaded: {name}" for name in load_checkpoint(self, path, allow_pickle)]

    def load_backbone(self, path: str, allow_pickle: bool = False) -> list[str]:
        """Load nothing but backbone and pyramid from a checkpoint, which may be for other classes; else as `load`."""
        return [f"not loaded: {name}" for name in load_backbone(self, path, allow_pickle)]

    def check(self, variant: Variant) -> None:
        """Refuse a variant that pools more tokens than there are.

        Raises:
            ConfigError: the pool is larger than the grid or a window.
        """
        windows = [block.attn.window_size for block in self.net.blocks]  # type: ignore[union-attr]
        sides: list[int] = [*self.net.grid, *filter(None, windows)]
        if variant.pool > 1 and min(sides) < variant.pool:
            raise ConfigError(
                f"variant.pool is {variant.pool}, but the smallest grid or window of the model has "
                f"{min(sides)} tokens on a side; it must be at most {min(sides)}"
            )

    def stream(self, variant: Variant, policy: Policy | None = None) -> Stream:
        """A new video stream through the Transformer."""
        return Stream(self.net, variant, policy)

    def decode(self, outputs: Sequence[Tensor], frame: Frame) -> Detections:
        """The objects of a frame, in its pixels, from the stream's output."""
        (tokens,) = outputs
        height, width = frame.image.shape[-2:]
        return self.detect(tokens, (height, width))

    def preprocess(self, image: Tensor) -> Tensor:
        """Resize a frame as for VID, normalise it, and pad it at the bottom and the right.

        Args:
            image: (3, H, W) RGB in [0, 255], uint8 or floating point.

        Returns:
            (1, 3, size, size) float32 on the model's device.

        Raises:
            ValueError: the image is not (3, H, W), or has NaN or infinite pixels.
        """
        check_picture(image)
        height, width = image.shape[-2:]
        new = self.resized(height, width)
        if new != (height, width):
            x = F.interpolate(image.unsqueeze(0), new, mode="bilinear", antialias=True)  # uint8 stays uint8
            image = x.squeeze(0)
        return self.normalise(image)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which a frame is resized: at 1024, short edge 640, long edge at most 1024."""
        scale = min(int(self.short_edge * self.size) / min(height, width), self.size / max(height, width))
        return max(1, round(scale * height)), max(1, round(scale * width))

    def place_of(self, height: int, width: int) -> Box:
        """In the upper left corner; see `FrameModel`."""
        return Box(0, 0, *self.resized(height, width))

    def input_scale(self, image_size: tuple[int, int]) -> Tensor:
        """(4,): what x0, y0, x1 and y1 in a frame of some height and width are multiplied by to be in the input."""
        (height, width), (new_height, new_width) = image_size, self.resized(*image_size)
        return torch.tensor([new_width / width, new_height / height] * 2)

    def in_tokens(self, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Boxes (n, 4) in a frame of some height and width, in tokens, so that the first is from 0 to 1."""
        return boxes * self.input_scale(image_size).to(boxes.device) / self.net.patch_size

    def regions(self, found: Detections, frame: Frame) -> Tensor:
        """What a stream is told of the objects of a frame, (n, 5); see `Stream.saw`."""
        height, width = frame.image.shape[-2:]
        return torch.cat([self.in_tokens(found.boxes, (height, width)), found.scores.unsqueeze(-1)], -1)

    def normalise(self, image: Tensor) -> Tensor:
        """Normalise a frame (3, h, w) of at most size x size pixels and pad it to (1, 3, size, size) float32."""
        x = (image.to(self.pixel_mean.device, torch.float32) - self.pixel_mean) / self.pixel_std
        height, width = x.shape[-2:]
        return F.pad(x, (0, self.size - width, 0, self.size - height)).unsqueeze(0)

    def pyramid(self, tokens: Tensor) -> list[Tensor]:
        """The levels p2 to p6, (B, fpn_channels, h, w) each, of the backbone's output (B, N, D)."""
        # A view: the maps are in channels-last memory, in which the layers below are fastest.
        return pyramid(self.backbone, tokens.unflatten(1, self.net.grid).permute(0, 3, 1, 2))

    def propose(self, features: Sequence[Tensor]) -> list[Proposals]:
        """Where objects may be in each picture, in pixels of the input, from `pyramid`'s levels."""
        return self.proposal_generator(features, (self.size, self.size))

    def classify(self, features: Sequence[Tensor], proposals: Sequence[Proposals]) -> list[Detections]:
        """The objects in each picture, in pixels of the input, from `pyramid`'s levels and `propose`'s boxes."""
        return self.roi_heads(features, (self.size, self.size), proposals)

    @torch.no_grad()
    def detect(self, tokens: Tensor, image_size: tuple[int, int]) -> Detections:
        """Find the objects of a frame.

        As published, boxes are clipped to the padded input and not to the frame, so one may end outside of it.

        Args:
            tokens: (1, N, D), the backbone's output.
            image_size: height and width of the frame as `preprocess` got it.

        Returns:
            The detections, in pixels of that frame.
        """
        features = self.pyramid(tokens)
        (found,) = self.classify(features, self.propose(features))
        return found._replace(boxes=found.boxes / self.input_scale(image_size).to(found.boxes))

    def losses(self, images: Tensor, targets: Sequence[Boxes]) -> dict[str, Tensor]:
        """The losses of the whole model on a batch, densely computed; their sum is what training minimises.

        Args:
            images: (B, 3, size, size), frames as from `preprocess`.
            targets: the objects of each, in pixels of the input: those of the frame times `input_scale`.

        Returns:
            `loss_rpn_cls` and `loss_rpn_loc` (see `RPN`), `loss_cls` and `loss_box_reg` (see `ROIHeads`).
        """
        features, size = self.pyramid(self.net(images)), (self.size, self.size)
        proposals, losses = self.proposal_generator.training_losses(features, size, targets)
        return {**losses, **self.roi_heads.training_losses(features, size, proposals, targets)}
