"""detectron2's own RPN and ROI heads, with the parameter names, settings and interface of ours.

detectron2 is not on PyPI; its project says how it is built. Nothing here is used unless `detector` is detectron2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from evt.data import video
from evt.models.boxes import Detections, Proposals
from evt.models.pyramid import strides
from evt.models.rpn import ASPECT_RATIOS

_LEVELS = ("p2", "p3", "p4", "p5", "p6")


def classes() -> tuple[Any, Any]:
    """The counterparts of `evt.models.rpn.RPN` and `evt.models.roi_heads.ROIHeads`.

    Raises:
        ValueError: detectron2 cannot be imported.
    """
    try:
        from detectron2.layers import ShapeSpec
        from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
        from detectron2.modeling.box_regression import Box2BoxTransform
        from detectron2.modeling.matcher import Matcher
        from detectron2.modeling.poolers import ROIPooler
        from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
        from detectron2.modeling.roi_heads import (
            FastRCNNConvFCHead,
            FastRCNNOutputLayers,
            StandardROIHeads,
        )
        from detectron2.structures import Boxes, ImageList, Instances
        from detectron2.utils.events import EventStorage
    except ImportError as error:
        raise ValueError(
            f"model.detector is detectron2, which cannot be imported ({error}); install it, or use builtin"
        ) from error

    def named(features: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(_LEVELS, features, strict=True))

    def image_list(features: Sequence[Tensor], input_size: tuple[int, int]) -> Any:
        # The pixels are not looked at.
        return ImageList(features[0], [input_size] * len(features[0]))

    def instances(input_size: tuple[int, int], targets: Sequence[video.Boxes]) -> list[Any]:
        return [Instances(input_size, gt_boxes=Boxes(x.boxes), gt_classes=x.labels) for x in targets]

    def proposed(input_size: tuple[int, int], proposals: Sequence[Proposals]) -> list[Any]:
        return [
            Instances(input_size, proposal_boxes=Boxes(x.boxes), objectness_logits=x.logits)
            for x in proposals
        ]

    class Detectron2RPN(RPN):
        def __init__(self, channels: int, pre_nms_top: int, post_nms_top: int, patch_size: int) -> None:
            super().__init__(
                in_features=list(_LEVELS),
                head=StandardRPNHead(
                    in_channels=channels, num_anchors=len(ASPECT_RATIOS), conv_dims=[-1, -1]
                ),
                anchor_generator=DefaultAnchorGenerator(
                    sizes=[[8 * stride] for stride in strides(patch_size)],
                    aspect_ratios=list(ASPECT_RATIOS),
                    strides=strides(patch_size),
                    offset=0.0,
                ),
                anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
                box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
                batch_size_per_image=256,
                positive_fraction=0.5,
                pre_nms_topk=(2 * pre_nms_top, pre_nms_top),
                post_nms_topk=(post_nms_top, post_nms_top),
                nms_thresh=0.7,
            )

        # detectron2 chooses between inference and losses by the module's mode; nothing else here depends on it.
        def forward(self, features: Sequence[Tensor], input_size: tuple[int, int]) -> list[Proposals]:
            self.eval()
            found, _ = super().forward(image_list(features, input_size), named(features))
            return [Proposals(x.proposal_boxes.tensor, x.objectness_logits) for x in found]

        def training_losses(
            self, features: Sequence[Tensor], input_size: tuple[int, int], targets: Sequence[video.Boxes]
        ) -> tuple[list[Proposals], dict[str, Tensor]]:
            self.train()
            with EventStorage():  # detectron2 logs into it
                found, losses = super().forward(
                    image_list(features, input_size), named(features), instances(input_size, targets)
                )
            return [Proposals(x.proposal_boxes.tensor, x.objectness_logits) for x in found], losses

    class Detectron2ROIHeads(StandardROIHeads):
        def __init__(
            self,
            channels: int,
            fc_dim: int,
            n_classes: int,
            score_threshold: float,
            max_detections: int,
            patch_size: int,
            samples_per_image: int,
        ) -> None:
            super().__init__(
                num_classes=n_classes,
                batch_size_per_image=samples_per_image,
                positive_fraction=0.25,
                proposal_matcher=Matcher([0.5], [0, 1], allow_low_quality_matches=False),
                box_in_features=list(_LEVELS[:4]),
                box_pooler=ROIPooler(
                    output_size=7,
                    scales=[1 / stride for stride in strides(patch_size)[:4]],
                    sampling_ratio=0,
                    pooler_type="ROIAlignV2",
                    canonical_box_size=14 * patch_size,
                    canonical_level=round(math.log2(patch_size)),
                ),
                box_head=FastRCNNConvFCHead(
                    ShapeSpec(channels=channels, height=7, width=7),
                    conv_dims=[channels] * 4,
                    fc_dims=[fc_dim],
                    conv_norm="LN",
                ),
                box_predictor=FastRCNNOutputLayers(
                    ShapeSpec(channels=fc_dim),
                    box2box_transform=Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
                    num_classes=n_classes,
                    test_score_thresh=score_threshold,
                    test_nms_thresh=0.5,
                    test_topk_per_image=max_detections,
                    box_reg_loss_type="giou",
                    loss_weight={"loss_box_reg": 2.0},
                ),
            )

        def forward(
            self, features: Sequence[Tensor], input_size: tuple[int, int], proposals: Sequence[Proposals]
        ) -> list[Detections]:
            self.eval()
            found, _ = super().forward(
                image_list(features, input_size), named(features), proposed(input_size, proposals)
            )
            return [Detections(x.pred_boxes.tensor, x.scores, x.pred_classes) for x in found]

        def training_losses(
            self,
            features: Sequence[Tensor],
            input_size: tuple[int, int],
            proposals: Sequence[Proposals],
            targets: Sequence[video.Boxes],
        ) -> dict[str, Tensor]:
            self.train()
            with EventStorage():
                _, losses = super().forward(
                    image_list(features, input_size),
                    named(features),
                    proposed(input_size, proposals),
                    instances(input_size, targets),
                )
            return losses

    return Detectron2RPN, Detectron2ROIHeads
