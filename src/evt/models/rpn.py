"""The region proposal network (Ren et al. 2015) as detectron2 0.6 runs it, on the pyramid of ViTDet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.data.video import Boxes
from evt.models.boxes import Proposals, clip, decode, encode
from evt.models.matching import match, sample
from evt.models.ops import batched_nms
from evt.models.pyramid import strides
from evt.models.vit import check_whole

ASPECT_RATIOS = (0.5, 1.0, 2.0)
"""Height by width of the anchors at a cell."""

_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
_NMS_IOU = 0.7
_SAMPLES = 256
_POSITIVE_FRACTION = 0.5


class RPNHead(nn.Module):
    """Two 3 x 3 convolutions, and at each cell an objectness logit and four deltas for each anchor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        n = len(ASPECT_RATIOS)
        self.conv = nn.Sequential(
            OrderedDict((f"conv{i}", nn.Conv2d(channels, channels, 3, padding=1)) for i in range(2))
        )
        self.objectness_logits = nn.Conv2d(channels, n, 1)
        self.anchor_deltas = nn.Conv2d(channels, 4 * n, 1)
        for layer in (*self.conv, self.objectness_logits, self.anchor_deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map a level (B, C, H, W) to logits (B, H * W * A) and deltas (B, H * W * A, 4)."""
        for conv in self.conv:
            x = F.relu_(conv(x))
        logits = self.objectness_logits(x).permute(0, 2, 3, 1).flatten(1)
        deltas = self.anchor_deltas(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4)
        return logits, deltas


class RPN(nn.Module):
    """From a feature pyramid to the boxes that may hold an object.

    Args:
        channels: of every level.
        pre_nms_top: proposals of each level that suppression sees; twice as many in training.
        post_nms_top: proposals of all levels that remain.
        patch_size: of the backbone, in pixels; the pyramid's strides and the anchors are in proportion to it.

    Raises:
        ValueError: a setting is not a whole number of at least 1.
    """

    def __init__(
        self, channels: int, pre_nms_top: int = 1000, post_nms_top: int = 1000, patch_size: int = 16
    ) -> None:
        super().__init__()
        check_whole(
            fpn_channels=channels, pre_nms_top=pre_nms_top, post_nms_top=post_nms_top, patch_size=patch_size
        )
        self.strides = strides(patch_size)
        self.rpn_head = RPNHead(channels)
        self.pre_nms_top = pre_nms_top
        self.post_nms_top = post_nms_top

    def forward(self, features: Sequence[Tensor], input_size: tuple[int, int]) -> list[Proposals]:
        """Propose boxes.

        Args:
            features: p2 to p6, (B, C, h, w) each.
            input_size: height and width to which boxes are clipped, in pixels.

        Returns:
            The proposals of each picture.
        """
        outputs = [self.rpn_head(x) for x in features]
        return self._propose(outputs, self._anchors(features), input_size, self.pre_nms_top)

    def training_losses(
        self, features: Sequence[Tensor], input_size: tuple[int, int], targets: Sequence[Boxes]
    ) -> tuple[list[Proposals], dict[str, Tensor]]:
        """The losses of one batch, and its proposals, through which no gradient flows.

        An anchor is positive from an IoU of 0.7 with a true box, or when none overlaps that box more, and negative
        below 0.3. Of each picture 256 are drawn, at most half of them positive.

        Returns:
            As `forward`; and `loss_rpn_cls`, binary cross-entropy, and `loss_rpn_loc`, L1 of the positives' deltas,
            both as sums divided by 256 and by the number of pictures.
        """
        outputs = [self.rpn_head(x) for x in features]
        levels = self._anchors(features)
        cells = torch.cat(levels)
        logits = torch.cat([x for x, _ in outputs], 1)  # (B, n)
        deltas = torch.cat([x for _, x in outputs], 1)  # (B, n, 4)
        classification, location = logits.new_zeros(()), logits.new_zeros(())
        for i, target in enumerate(targets):
            with torch.no_grad():
                index, kind = match(cells, target.boxes, 0.3, 0.7, keep_best=True)
                positive, negative = sample(kind, _SAMPLES, _POSITIVE_FRACTION)
                drawn = torch.cat([positive, negative])
                truth = (kind[drawn] == 1).to(logits.dtype)
            classification = classification + F.binary_cross_entropy_with_logits(
                logits[i, drawn], truth, reduction="sum"
            )
            wanted = encode(cells[positive], target.boxes[index[positive]], _WEIGHTS)
            location = location + (deltas[i, positive] - wanted).abs().sum()
        n = _SAMPLES * len(targets)
        with torch.no_grad():
            proposals = self._propose(outputs, levels, input_size, 2 * self.pre_nms_top)
        return proposals, {"loss_rpn_cls": classification / n, "loss_rpn_loc": location / n}

    def _anchors(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [
            anchors(x.shape[-2], x.shape[-1], stride, x.device)
            for x, stride in zip(features, self.strides, strict=True)
        ]

    def _propose(
        self,
        outputs: Sequence[tuple[Tensor, Tensor]],
        levels: Sequence[Tensor],
        input_size: tuple[int, int],
        pre_nms_top: int,
    ) -> list[Proposals]:
        boxes, scores, level = [], [], []
        for i, ((logits, deltas), cells) in enumerate(zip(outputs, levels, strict=True)):
            # Only those that suppression sees are decoded.
            top, index = logits.topk(min(pre_nms_top, logits.shape[1]), dim=1)  # (B, k)
            moved = deltas.gather(1, index[..., None].expand(-1, -1, 4))
            boxes.append(decode(cells[index], moved, _WEIGHTS))
            scores.append(top.float())  # half under mixed precision, which suppression does not take
            level.append(torch.full_like(index[0], i))
        return [
            self._suppress(*picture, torch.cat(level), input_size)
            for picture in zip(torch.cat(boxes, 1), torch.cat(scores, 1), strict=True)
        ]

    def _suppress(
        self, boxes: Tensor, logits: Tensor, levels: Tensor, input_size: tuple[int, int]
    ) -> Proposals:
        """Of the boxes (n, 4) of one picture, those that are not empty and not suppressed on their level."""
        finite = boxes.isfinite().all(1) & logits.isfinite()
        boxes = clip(boxes, *input_size)
        sides = boxes[:, 2:] - boxes[:, :2]
        usable = finite & (sides > 0).all(1)
        boxes, logits, levels = boxes[usable], logits[usable], levels[usable]
        keep = batched_nms(boxes, logits, levels, _NMS_IOU)[: self.post_nms_top]
        return Proposals(boxes[keep], logits[keep])


def anchors(height: int, width: int, stride: float, device: torch.device | None = None) -> Tensor:
    """The anchors of a level in detectron2's order: row by row, cell by cell, one for each aspect ratio.

    They are as large as a square of 8 strides.

    Returns:
        (height * width * 3, 4), the first cell's centred on the corner of the picture.
    """
    size = 8 * stride
    widths = torch.tensor([(size**2 / ratio) ** 0.5 for ratio in ASPECT_RATIOS], device=device)
    heights = widths * torch.tensor(ASPECT_RATIOS, device=device)
    cell = torch.stack([-widths, -heights, widths, heights], -1) / 2  # (A, 4)
    y = torch.arange(height, device=device)[:, None].expand(-1, width) * stride
    x = torch.arange(width, device=device).expand(height, -1) * stride
    return (torch.stack([x, y, x, y], -1)[:, :, None] + cell).reshape(-1, 4)
