"""The operations of ViViT against the paper's tables A and D and the published code's counts."""

from __future__ import annotations

import csv
import json
from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch

from evt.evaluate.shapes import Operations, operations_of_clip, operations_of_shapes
from evt.eventful import VARIANTS, TopR, count_ops
from evt.models.vivit import ViViT
from tests.common import ROOT

COUNTS = [
    row for row in json.loads((ROOT / "tests/paper/opcounts.json").read_text()) if row["model"] == "vivit"
]
PAPER = [
    {"table": table, **row}
    for table in ("table_a", "table_d")
    for row in csv.DictReader((ROOT / f"src/evt/tables/paper/{table}.csv").open())
]


@cache
def full_size(dataset: str) -> ViViT:
    with torch.device("meta"):
        return ViViT(320, 97, 1) if dataset == "epic" else ViViT(224, 400, 2)


def policy_of(r: object) -> TopR | None:
    return TopR(int(str(r))) if r else None


@cache
def operations(dataset: str, variant: str, r: str) -> Operations:
    model = full_size(dataset)
    return operations_of_shapes(model, VARIANTS[variant], policy_of(r), model.steps)


def total(dataset: str, variant: str, r: str) -> int:
    return operations_of_clip(full_size(dataset), VARIANTS[variant], policy_of(r))


@pytest.mark.parametrize("row", PAPER, ids=lambda row: f"{row['table']}-{row['variant']}-{row['r']}")
def test_tflops_are_those_of_the_paper(row: dict[str, str]) -> None:
    """Else our tables A and D do not say what the paper's say."""
    ops = total("epic" if row["table"] == "table_d" else "k400", row["variant"], row["r"])
    digits = len(row["tflops"].partition(".")[2])
    assert f"{ops / 1e12:.{digits}f}" == row["tflops"]


@pytest.mark.parametrize("row", COUNTS, ids=lambda row: f"{row['dataset']}-{row['r']}")
def test_operations_are_those_of_the_published_code(row: dict[str, Any]) -> None:
    """By kind for each part, and in all for the video: the last operation, not the last printed digit."""
    ops = operations(row["dataset"], row["variant"], str(row["r"] or ""))
    assert (ops.first, ops.later) == (row["first"], row["incremental"])
    assert ops.decoding == Counter(row["temporal"]) + Counter(row["classifier"])
    model = full_size(row["dataset"])
    in_all = total(row["dataset"], row["variant"], str(row["r"] or ""))
    assert (model.steps, len(model.views), in_all) == (row["steps"], row["views"], row["total"])


def test_a_video_run_whole_costs_what_its_parts_do() -> None:
    """All views as one batch, all steps, temporal sub-model, classifier: else the total leaves something out."""
    with torch.device("meta"):
        model = ViViT(224, 400, 2, view_frames=10, temporal_views=2, spatial_views=1)
    variant, policy = VARIANTS["temporal"], TopR(48)
    with count_ops() as ops:
        views = torch.empty(2, 10, 3, 224, 224, device="meta")
        model.classify(model.run_spatial(views, variant, policy))
    assert ops.total() == operations_of_clip(model, variant, policy)
