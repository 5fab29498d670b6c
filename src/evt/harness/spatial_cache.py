"""The frozen spatial sub-model's outputs for all clips, on disk: computed once, and read for every epoch.

A folder holds shards of many clips each, `00000.safetensors` and so on, and `cache.json`, which says what they were
computed from. A shard appears whole or not at all, so that a run killed at any point goes on at its next shard.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from evt.data.actions import ActionClip, ActionData
from evt.data.video import DataError
from evt.eventful import Policy, Variant
from evt.harness.recognise import OnError, check_missing
from evt.models.checkpoints import hash_of
from evt.models.vivit import ViViT

log = logging.getLogger(__name__)

CLIPS_PER_SHARD = 64
"""A clip of 12 views and 16 steps is 0.6 MB, so a shard is 38 MB; a kill costs at most so many clips."""


@dataclass(frozen=True)
class SpatialCache:
    """The spatial outputs of a data set's clips, read one clip at a time.

    clips: name, label and shard of each, in the data set's order.
    skipped: the clips that could not be read when the cache was filled, with why.
    origin: a hash of all that the outputs depend on.
    """

    clips: list[tuple[str, int, Path]]
    skipped: dict[str, str]
    origin: str

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """Outputs (V, steps, D) and label of a clip."""
        name, label, shard = self.clips[i]
        with safe_open(shard, framework="pt") as file:
            return file.get_tensor(name), label

    def sample(self, i: int, generator: torch.Generator) -> tuple[Tensor, int]:
        """Outputs and label of a clip, to train on; nothing about them is random."""
        return self[i]


def fill_cache(
    folder: Path,
    model: ViViT,
    variant: Variant,
    policy: Policy | None,
    data: ActionData,
    on_error: OnError = "skip",
) -> SpatialCache:
    """Compute what a cache lacks, all of it where there is none yet, and open it.

    Args:
        folder: of the cache; made where it does not exist.
        model, variant, policy: the spatial sub-model and how it runs.
        data: the clips.
        on_error: what to do with a clip that cannot be read: leave it out, or stop.

    Raises:
        DataError: the folder holds the outputs of another model, variant, policy or data set, a shard is broken,
            no clip can be read, or one cannot and `on_error` is "fail".
    """
    check_missing(data, on_error)
    origin = _origin(model, variant, policy, data)
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder / "cache.json", origin)

    shards = [folder / f"{i:05d}.safetensors" for i in range(-(-len(data) // CLIPS_PER_SHARD))]
    clips: Iterator[int] = iter(range(len(data)))
    with tqdm(total=len(data), desc="spatial outputs", unit="clip") as bar:
        for shard in shards:
            positions = list(itertools.islice(clips, CLIPS_PER_SHARD))
            if not shard.exists():
                _fill_shard(shard, model, variant, policy, (data[i] for i in positions), on_error, bar)
            else:
                bar.update(len(positions))

    entries: list[tuple[str, int, Path]] = []
    skipped: dict[str, str] = {}
    for shard in shards:
        labels, skipped_here = _read_header(shard)
        entries += [(name, label, shard) for name, label in labels.items()]
        skipped |= skipped_here
    if skipped and on_error == "fail":
        name, reason = next(iter(skipped.items()))
        raise DataError(
            f"{folder} was filled without {len(skipped)} clips that could not be read, the first {name}: {reason}; "
            "delete the folder to read them again"
        )
    if not entries:
        raise DataError(f"{data.name}: none of its {len(data)} clips could be read; at least 1 is needed")
    return SpatialCache(entries, skipped, hashlib.sha256(_json(origin).encode()).hexdigest())


def _fill_shard(
    shard: Path,
    model: ViViT,
    variant: Variant,
    policy: Policy | None,
    clips: Iterator[ActionClip],
    on_error: OnError,
    bar: Any,
) -> None:
    outputs: dict[str, Tensor] = {}
    labels: dict[str, int] = {}
    skipped: dict[str, str] = {}
    for clip in clips:
        try:
            views = model.preprocess(clip.frames)
        except DataError as error:
            if on_error == "fail":
                raise
            log.warning("left out: %s", error)
            skipped[clip.name] = str(error)
        else:
            outputs[clip.name] = model.run_spatial(views, variant, policy).cpu()
            labels[clip.name] = clip.label
        bar.update()
    save_whole(shard, outputs, {"labels": json.dumps(labels), "skipped": json.dumps(skipped)})


def _read_header(shard: Path) -> tuple[dict[str, int], dict[str, str]]:
    try:
        with safe_open(shard, framework="pt") as file:
            header = file.metadata()
        return json.loads(header["labels"]), json.loads(header["skipped"])
    except (OSError, SafetensorError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise DataError(
            f"{shard}: not a shard of spatial outputs ({error}); delete it, and it is made anew"
        ) from error


def _origin(model: ViViT, variant: Variant, policy: Policy | None, data: ActionData) -> dict[str, Any]:
    """All that spatial outputs depend on."""
    names = hashlib.sha256()
    for clip in data:
        names.update(f"{clip.name}\t{clip.label}\t{clip.fingerprint}\n".encode())
    spatial = {
        name: x for name, x in model.state_dict().items() if name.startswith(("patch_embed.", "spatial."))
    }
    return {
        "data": data.name,
        "clips": f"{len(data)}, sha256 {names.hexdigest()}",
        "views": asdict(model.views),
        "weights": hash_of(spatial),
        # No weight's shape shows how many heads share it.
        "num_heads": [block.attn.num_heads for block in model.spatial.blocks],  # type: ignore[union-attr]
        "variant": asdict(variant),
        "policy": repr(policy),
        "clips_per_shard": CLIPS_PER_SHARD,
    }


def claim(path: Path, content: dict[str, Any]) -> None:
    """Write what a folder is for into it, or check that it is for the same.

    Raises:
        DataError: it is for something else; the message names what differs.
    """
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: broken ({error}); delete {path.parent} to start anew") from error
        differ = [key for key in content if found.get(key) != json.loads(_json(content[key]))]
        if differ:
            raise DataError(
                f"{path.parent} was made with other {', '.join(differ)}; "
                "choose another folder, or delete it to start anew"
            )
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(_json(content) + "\n")
    os.replace(partial, path)


def save_whole(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file that is there whole, and on the disk, or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    save_file({name: x.contiguous() for name, x in tensors.items()}, partial, metadata)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def _json(content: Any) -> str:
    return json.dumps(content, indent=2)
