"""The box head of Faster R-CNN (Ren et al. 2015) as detectron2 0.6 runs it, with the 4conv1fc head of ViTDet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.data.video import Boxes
from evt.models.boxes import Detections, Proposals, area, clip, decode, giou_loss
from evt.models.matching import match, sample
from evt.models.ops import batched_nms, roi_align
from evt.models.pyramid import ConvNorm, strides
from evt.models.vit import check_whole

_LEVELS = 4
"""Regions are pooled from p2 to p5."""
_OUTPUT_SIZE = 7
_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
_NMS_IOU = 0.5
_POSITIVE_FRACTION = 0.25
_MATCH_IOU = 0.5
_BOX_LOSS_WEIGHT = 2.0


class BoxHead(nn.Module):
    """Four 3 x 3 convolutions with layer norm, and a linear layer."""

    def __init__(self, channels: int, fc_dim: int) -> None:
        super().__init__()
        for i in range(1, 5):
            self.add_module(f"conv{i}", ConvNorm(channels, channels, 3))
        self.fc1 = nn.Linear(channels * _OUTPUT_SIZE**2, fc_dim)
        nn.init.kaiming_uniform_(self.fc1.weight, a=1)
        nn.init.zeros_(self.fc1.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map pooled regions (n, C, 7, 7) to (n, fc_dim)."""
        for i in range(1, 5):
            x = F.relu_(self.get_submodule(f"conv{i}")(x))
        return F.relu_(self.fc1(x.flatten(1)))


class BoxPredictor(nn.Module):
    """The logits of every class and of the background, the last, and four deltas for every class."""

    def __init__(self, fc_dim: int, n_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(fc_dim, n_classes + 1)
        self.bbox_pred = nn.Linear(fc_dim, 4 * n_classes)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (n, fc_dim) to logits (n, K + 1) and deltas (n, K, 4)."""
        return self.cls_score(x), self.bbox_pred(x).unflatten(-1, (-1, 4))


class ROIHeads(nn.Module):
    """From proposals to detections.

    Args:
        channels: of every level of the pyramid.
        fc_dim: width of the linear layer.
        n_classes: without the background.
        score_threshold: a detection's score must be greater.
        max_detections: of a picture.
        patch_size: of the backbone, in pixels; the pyramid's strides are in proportion to it.
        samples_per_image: proposals that are trained on in each picture.

    Raises:
        ValueError: score_threshold is not at least 0 and below 1, or another setting is not a whole number of at
            least 1.
    """

    def __init__(
        self,
        channels: int,
        fc_dim: int,
        n_classes: int,
        score_threshold: float = 0.05,
        max_detections: int = 100,
        patch_size: int = 16,
        samples_per_image: int = 512,
    ) -> None:
        super().__init__()
        check_whole(
            fpn_channels=channels,
            fc_dim=fc_dim,
            n_classes=n_classes,
            max_detections=max_detections,
            patch_size=patch_size,
            samples_per_image=samples_per_image,
        )
        if not 0 <= score_threshold < 1:
            raise ValueError(f"model.score_threshold is {score_threshold}; it must be at least 0 and below 1")
        self.box_head = BoxHead(channels, fc_dim)
        self.box_predictor = BoxPredictor(fc_dim, n_classes)
        self.n_classes = n_classes
        self.patch_size = patch_size
        self.samples_per_image = samples_per_image
        self.score_threshold = score_threshold
        self.max_detections = max_detections

    def forward(
        self, features: Sequence[Tensor], input_size: tuple[int, int], proposals: Sequence[Proposals]
    ) -> list[Detections]:
        """Classify and move proposals, and suppress what is found twice.

        Args:
            features: p2 to p6, (B, C, h, w) each; p6 is not looked at.
            input_size: height and width to which boxes are clipped, in pixels.
            proposals: of each picture.

        Returns:
            The detections of each picture, in pixels of the input.
        """
        boxes = [x.boxes for x in proposals]
        logits, deltas = self._predict(features, boxes)
        counts = [len(x) for x in boxes]
        return [
            self._detect(*picture, input_size)
            for picture in zip(boxes, logits.softmax(-1).split(counts), deltas.split(counts), strict=True)
        ]

    def training_losses(
        self,
        features: Sequence[Tensor],
        input_size: tuple[int, int],
        proposals: Sequence[Proposals],
        targets: Sequence[Boxes],
    ) -> dict[str, Tensor]:
        """The losses of one batch.

        True boxes join the proposals. A proposal whose IoU with a true box is at least 0.5 is of its class, any other
        is background. Of each picture `samples_per_image` are drawn, at most a quarter of them objects.

        Returns:
            `loss_cls`, the mean cross-entropy, and `loss_box_reg`, 2.0 times the sum of the objects' GIoU losses
            divided by the number of all that were drawn.
        """
        boxes, truths, labels = [], [], []
        for proposal, target in zip(proposals, targets, strict=True):
            with torch.no_grad():
                candidates = torch.cat([proposal.boxes, target.boxes])
                index, kind = match(candidates, target.boxes, _MATCH_IOU, _MATCH_IOU, keep_best=False)
                positive, negative = sample(kind, self.samples_per_image, _POSITIVE_FRACTION)
                boxes.append(candidates[torch.cat([positive, negative])])
                truths.append(target.boxes[index[positive]])
                labels.append(target.labels[index[positive]])
                labels.append(torch.full_like(negative, self.n_classes))
        logits, deltas = self._predict(features, boxes)
        label = torch.cat(labels)
        found = (label < self.n_classes).nonzero().squeeze(1)
        moved = decode(torch.cat(boxes)[found], deltas[found, label[found]], _WEIGHTS)
        n = max(1, len(label))
        return {
            "loss_cls": F.cross_entropy(logits, label, reduction="sum") / n,
            "loss_box_reg": _BOX_LOSS_WEIGHT * giou_loss(moved, torch.cat(truths)).sum() / n,
        }

    def _predict(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (n, K + 1) and deltas (n, K, 4) of the boxes of all pictures, one after the other."""
        rois = torch.cat([F.pad(x, (1, 0), value=i) for i, x in enumerate(boxes)])  # (n, 5)
        level = pyramid_level(rois[:, 1:], self.patch_size)
        # The heads see the regions level by level, so that nothing of the size of the pooled regions is reordered.
        order = level.argsort(stable=True)
        counts = torch.bincount(level, minlength=_LEVELS).tolist()
        pooled = [
            roi_align(x, part, _OUTPUT_SIZE, 1 / stride)
            for x, part, stride in zip(
                features[:_LEVELS], rois[order].split(counts), strides(self.patch_size)[:_LEVELS], strict=True
            )
        ]
        logits, deltas = self.box_predictor(self.box_head(torch.cat(pooled)))
        back = order.argsort()
        return logits[back], deltas[back]

    def _detect(
        self, boxes: Tensor, scores: Tensor, deltas: Tensor, input_size: tuple[int, int]
    ) -> Detections:
        """The detections of one picture from boxes (n, 4), scores (n, K + 1) and deltas (n, K, 4)."""
        usable = scores.isfinite().all(1) & deltas.isfinite().flatten(1).all(1)
        # Only what may be a detection is decoded: a few boxes of a few classes.
        index, label = ((scores[:, :-1] > self.score_threshold) & usable[:, None]).nonzero().unbind(1)
        score = scores[index, label]
        moved = clip(decode(boxes[index], deltas[index, label], _WEIGHTS), *input_size)
        keep = batched_nms(moved, score, label, _NMS_IOU)[: self.max_detections]
        return Detections(moved[keep], score[keep], label[keep])


def pyramid_level(boxes: Tensor, patch_size: int) -> Tensor:
    """The level on which each box (n, 4) is pooled, 0 for p2 to 3 for p5 (Lin et al. 2017, equation 1).

    Boxes of 14 x 14 patches go to p4.
    """
    level = torch.floor(4 + torch.log2(area(boxes).sqrt() / (14 * patch_size) + 1e-8))
    return level.clamp(2, 5).long() - 2
