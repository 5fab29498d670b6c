"""The frozen spatial sub-model's outputs for all clips, on disk: computed once, and read for every epoch.

A folder holds shards of many clips each, `00000.safetensors` and so on, and `cache.json`, which says what they were
computed from. A shard appears whole or not at all, so that a run killed at any point goes on at its next shard. What
is read back is held to its hashes: that of a shard's header when the cache is opened, and a clip's when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from evt.data.actions import ActionClip, ActionData
from evt.data.reading import OnError, check_missing, read_or_skip
from evt.errors import DataError
from evt.eventful import Policy, Variant
from evt.files import sealed, unsealed, write
from evt.models.checkpoints import hash_of
from evt.models.vivit import ViViT
from evt.training.progress import differences

CLIPS_PER_SHARD = 64
"""A clip of 12 views and 16 steps is 0.6 MB, so a shard is 38 MB."""


@dataclass(frozen=True)
class SpatialCache:
    """The spatial outputs of a data set's clips, read one clip at a time.

    clips: name, label and shard of each, in the data set's order.
    hashes: of the outputs of each, by name.
    skipped: the clips that could not be read when the cache was filled, with why.
    origin: a hash of all that the outputs depend on.
    """

    clips: list[tuple[str, int, Path]]
    hashes: dict[str, str]
    skipped: dict[str, str]
    origin: str

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """Outputs (V, steps, D) and label of a clip.

        Raises:
            DataError: the shard is damaged, or gone.
        """
        name, label, shard = self.clips[i]
        try:
            with safe_open(shard, framework="pt") as file:
                outputs = file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise _damaged(shard, str(error)) from error
        if hash_of({name: outputs}) != self.hashes[name]:
            raise _damaged(shard, f"{name} is not what was written")
        return outputs, label

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
    clips_per_shard: int = CLIPS_PER_SHARD,
) -> SpatialCache:
    """Compute what a cache lacks, all of it where there is none yet, and open it.

    Args:
        folder: of the cache; made where it does not exist.
        model, variant, policy: the spatial sub-model and how it runs.
        data: the clips.
        on_error: what to do with a clip that cannot be read: leave it out, or stop.
        clips_per_shard: a run that is killed computes at most so many anew.

    Raises:
        DataError: the folder holds the outputs of another model, variant, policy or data set, a shard is broken,
            no clip can be read, or one cannot and `on_error` is "fail".
    """
    check_missing(data, on_error)
    origin = _origin(model, variant, policy, data, clips_per_shard)
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder / "cache.json", origin)
    identity = hashlib.sha256(_json(origin).encode()).hexdigest()

    entries: list[tuple[str, int, Path]] = []
    hashes: dict[str, str] = {}
    skipped: dict[str, str] = {}
    with tqdm(total=len(data), desc="spatial outputs", unit="clip") as bar:
        for i, start in enumerate(range(0, len(data), clips_per_shard)):
            shard = folder / f"{i:05d}.safetensors"
            positions = range(len(data))[start : start + clips_per_shard]
            if not shard.exists():
                _fill_shard(
                    shard, identity, model, variant, policy, (data[i] for i in positions), on_error, bar
                )
            else:
                bar.update(len(positions))
            header = _read_header(shard, identity)
            entries += [(name, label, shard) for name, label in header["labels"].items()]
            hashes |= header["hashes"]
            skipped |= header["skipped"]
    if skipped and on_error == "fail":
        name, reason = next(iter(skipped.items()))
        raise DataError(
            f"{folder} was filled without {len(skipped)} clips that could not be read, the first {name}: {reason}; "
            "delete the folder to read them again"
        )
    if not entries:
        raise DataError(f"{data.name}: none of its {len(data)} clips could be read; at least 1 is needed")
    return SpatialCache(entries, hashes, skipped, identity)


def _fill_shard(
    shard: Path,
    identity: str,
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
        views = read_or_skip(clip.name, partial(model.preprocess, clip.frames), on_error == "skip", skipped)
        if views is not None:
            outputs[clip.name] = model.run_spatial(views, variant, policy).cpu()
            labels[clip.name] = clip.label
        bar.update()
    header = _header_of(shard, identity) | {
        "labels": labels,
        "hashes": {name: hash_of({name: x}) for name, x in outputs.items()},
        "skipped": skipped,
    }
    content = {name: x.contiguous() for name, x in outputs.items()}
    write(shard, save(content, {"header": sealed(json.dumps(header).encode()).decode()}))


def _header_of(shard: Path, identity: str) -> dict[str, str]:
    """What a shard is of: one of another cache, or of another place in this one, is not taken for it."""
    return {"shard": shard.name, "origin": identity}


def _read_header(shard: Path, identity: str) -> dict[str, Any]:
    try:
        with safe_open(shard, framework="pt") as file:
            content = unsealed((file.metadata() or {}).get("header", "").encode())
    except (OSError, SafetensorError) as error:
        raise _damaged(shard, str(error)) from error
    if content is None:
        raise _damaged(shard, "its header is not what was written")
    header: dict[str, Any] = json.loads(content)
    if not _header_of(shard, identity).items() <= header.items():
        raise _damaged(shard, "it was written for another place")
    return header


def _damaged(shard: Path, reason: str) -> DataError:
    return DataError(f"{shard}: not a shard of spatial outputs ({reason}); delete it, and it is made anew")


def _origin(
    model: ViViT, variant: Variant, policy: Policy | None, data: ActionData, clips_per_shard: int
) -> dict[str, Any]:
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
        "clips_per_shard": clips_per_shard,
    }


def claim(path: Path, content: dict[str, Any]) -> None:
    """Write what a folder is for into it, or check that it is for the same.

    Raises:
        DataError: it is for something else; the message names what differs.
    """
    content = json.loads(_json(content))
    if path.exists():
        try:
            found = json.loads(path.read_bytes())
            if not isinstance(found, dict):
                raise ValueError("there are no settings in it")
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: broken ({error}); delete {path.parent} to start anew") from error
        if differ := differences(content, found):
            raise DataError(
                f"{path.parent} was made with other {differ}; "
                "choose another folder, or delete it to start anew"
            )
        return
    write(path, _json(content) + "\n")


def _json(content: Any) -> str:
    return json.dumps(content, indent=2)
