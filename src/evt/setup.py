"""From a composed config to the things it names. All checks of values that a user chose are here or below."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf

from evt.build import build, class_of
from evt.data.actions import ActionData
from evt.data.by_name import ByName, differences
from evt.data.clips import Clip, Pictures
from evt.data.epic_kitchens import EpicKitchens
from evt.data.frames import FrameFolder
from evt.data.kinetics import Kinetics
from evt.data.samples import IndexedVideo
from evt.data.something import SomethingSomething
from evt.data.sprites import ACTIONS, SpriteClips, SpriteVideos
from evt.data.vid import VID
from evt.data.vid_annotations import CLASSES
from evt.data.video import Video
from evt.errors import ConfigError
from evt.eventful import VARIANTS, Policy, Threshold, TopR, Variant, init_weights
from evt.models.checkpoints import (
    classes_in,
    load_backbone,
    load_checkpoint,
    load_tensors,
    read_checkpoint,
    read_class_names,
)
from evt.models.shipped import checkpoint_path
from evt.models.videomae import VideoMAE, published
from evt.models.vitdet import ViTDet
from evt.models.vivit import ViViT
from evt.models.vivit_weights import load_fine_tuned, load_published
from evt.tokens import Reduction
from evt.tokens.run_length import check_threshold
from evt.training.recipe import Recipe

log = logging.getLogger(__name__)

T = TypeVar("T")

M = TypeVar("M", ViTDet, ViViT, VideoMAE)


LENGTH_EMBEDDING = "length_embed.weight"
"""VideoMAE's parameter that official weights do not have."""

LABELLED = (EpicKitchens, Kinetics, SomethingSomething, SpriteClips)
"""The data sets of clips with labels."""

ANNOTATED: dict[str, type] = {"sprites": SpriteVideos, "vid": VID}
VIDEOS: dict[str, type] = {**ANNOTATED, "video": Clip, "frames": FrameFolder}
CLIPS: dict[str, type] = {
    **{
        "epic": EpicKitchens,
        "kinetics": Kinetics,
        "something": SomethingSomething,
        "sprite_clips": SpriteClips,
    },
    **{"sprites": SpriteVideos, "video": Clip, "frames": FrameFolder},
}
"""By the names of their configs: what a detector is trained on, what it runs on, and what models of clips run on."""


def build_device(cfg: DictConfig) -> torch.device:
    """The device that `device=...` names, after setting torch's thread count by `threads=...`."""
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    available = {"cpu": torch.device("cpu")}
    if torch.cuda.is_available():
        available["cuda"] = torch.device("cuda")
    available["auto"] = available.get("cuda", available["cpu"])
    return choice(available, "device", cfg.device)


REDUCTIONS = {"rlt": "run_length", "random_drop": "random_drop", "token_merging": "merge"}
"""The variants of models of whole clips, and the policy of each."""


def build_reduction(cfg: DictConfig) -> Reduction | None:
    """What `variant=...` and `policy=...` name, for a model of whole clips; None is the dense model."""
    variant, policy = cfg.variant.name, cfg.policy
    if variant not in ("base", *REDUCTIONS):
        raise ConfigError(
            f"variant is {variant} (temporal where none is given), but videomae sees a whole clip at once, with no "
            f"frame before to reuse; it must be {', '.join(('base', *REDUCTIONS))}"
        )
    name = REDUCTIONS.get(variant, "none")
    if policy.name != name:
        raise ConfigError(f"policy is {policy.name}, but variant {variant} takes {name}")
    if variant == "base":
        return None
    reduction: Reduction = build(policy, "policy")
    return reduction


def build_variant(cfg: DictConfig, model_name: str) -> Variant:
    """The variant that `variant=...` names, with its fields as given."""
    if cfg.name in REDUCTIONS:
        raise ConfigError(
            f"variant is {cfg.name}, which is for videomae; for {model_name} it must be one of {', '.join(VARIANTS)}"
        )
    variant: Variant = build(cfg, "variant")
    if variant.pool > 1 and model_name == "vivit":
        raise ConfigError(
            f"variant.pool is {variant.pool}, but ViViT's tokens form no grid, since one of them is the class "
            "token; it must be 1, as in base, temporal, tokenwise and stgt"
        )
    return variant


def build_policy(cfg: DictConfig, variant: Variant, n_tokens: int) -> Policy | None:
    """The policy that `policy=...` names; None for a variant without gates, which takes none."""
    if variant.gate is None:
        if cfg.name != "none":
            raise ConfigError(f"policy is {cfg.name}, but the variant has no gates; it must be none")
        return None
    if cfg.name == "none" or not issubclass(class_of(cfg, "policy"), TopR | Threshold):
        raise ConfigError(f"policy is {cfg.name}, but the variant has gates; it must be top_r or threshold")
    policy: Policy = build(cfg, "policy")
    check_budget(policy, n_tokens)
    return policy


def check_budget(policy: Policy | None, n_tokens: int) -> None:
    """Refuse a budget of more tokens than a frame has.

    Raises:
        ConfigError: it is.
    """
    if isinstance(policy, TopR) and policy.r > n_tokens:
        raise ConfigError(
            f"policy.r is {policy.r}, but a frame has {n_tokens} tokens; it must be at most {n_tokens}"
        )


@dataclass(frozen=True)
class Weights:
    """Where a model's weights come from.

    source: the checkpoint's file or the seed, in words.
    sha256: of the checkpoint; None where the weights were drawn from a seed.
    classes: the names of what they tell apart, in order; None where these are not known.
    """

    source: str
    sha256: str | None = None
    classes: Sequence[str] | None = None

    @property
    def trained(self) -> bool:
        """Whether they come from a checkpoint."""
        return self.sha256 is not None

    def __str__(self) -> str:
        return self.source


def build_model(cfg: DictConfig, device: torch.device) -> tuple[ViTDet | ViViT, Weights]:
    """The model that `model=...` names, in evaluation mode, and where its weights come from."""
    return (
        build_vitdet(cfg, device) if issubclass(class_of(cfg, "model"), ViTDet) else build_vivit(cfg, device)
    )


def build_vitdet(
    cfg: DictConfig, device: torch.device, backbone_only: bool = False
) -> tuple[ViTDet, Weights]:
    """A ViTDet; what its checkpoint holds and the model has no use for is listed on stderr.

    backbone_only: take nothing but backbone and pyramid from the checkpoint, which may be for other classes.
    """
    if not issubclass(class_of(cfg, "model"), ViTDet):
        raise ConfigError(f"model.name is {cfg.name}; this needs a ViTDet: vitdet or vitdet_mini")
    # The detector's layers draw their weights as they are built.
    model = _seeded(ViTDet, cfg, device, lambda model: model.net.apply(init_weights))
    if cfg.checkpoint is None:
        return model, _seeded_weights(cfg)
    path = checkpoint_path(cfg.checkpoint)
    load = load_backbone if backbone_only else load_checkpoint
    _list_left_out(cfg, [f"not loaded: {name}" for name in load(model, path, cfg.allow_pickle)])
    if backbone_only:  # the classes are then those of the data to come
        return model, _weights_of(path)
    return model, _named(_weights_of(path), cfg, model.n_classes)


def build_vivit(cfg: DictConfig, device: torch.device) -> tuple[ViViT, Weights]:
    """A ViViT; what its checkpoint holds and the model has no use for is listed on stderr."""
    if not issubclass(class_of(cfg, "model"), ViViT):
        raise ConfigError(f"model.name is {cfg.name}; this needs a ViViT: vivit_epic or vivit_kinetics")
    if cfg.fine_tuned is not None and cfg.checkpoint is None:
        raise ConfigError("model.fine_tuned is set and model.checkpoint is not; fine-tuned weights need both")
    model = _seeded(ViViT, cfg, device, lambda model: model.apply(init_weights))
    if cfg.checkpoint is None:
        return model, _seeded_weights(cfg)
    paths = [checkpoint_path(name) for name in (cfg.checkpoint, cfg.fine_tuned) if name]
    _list_left_out(cfg, _load_vivit(model, paths, cfg.allow_pickle))
    return model, _named(_weights_of(*paths), cfg, model.head.out_features)


def build_videomae(cfg: DictConfig, device: torch.device) -> tuple[VideoMAE, Weights]:
    """A VideoMAE; what its checkpoint holds and the model has no use for is listed on stderr."""
    model = _seeded(VideoMAE, cfg, device, lambda model: model.apply(init_weights))
    if cfg.checkpoint is None:
        return model, _seeded_weights(cfg)
    path = checkpoint_path(cfg.checkpoint)
    tensors = read_checkpoint(path, cfg.allow_pickle)
    lines = []
    if model.length_embed is not None and LENGTH_EMBEDDING not in tensors:
        # Trained without one, as the official models are: it is zero, which changes nothing, until it is trained.
        tensors[LENGTH_EMBEDDING] = model.length_embed.weight.detach()
        lines = [f"zero, since it is not in the file: {LENGTH_EMBEDDING}"]
    left_out = load_tensors(published(model), tensors, path)
    _list_left_out(cfg, [*lines, *(f"not loaded: {name}" for name in left_out)])
    return model, _named(_weights_of(path), cfg, model.head.out_features)


def _seeded(kind: type[M], cfg: DictConfig, device: torch.device, initialise: Callable[[M], object]) -> M:
    """A model of a kind with the settings below `model`, in evaluation mode, its weights drawn from its seed."""
    _check_memory(cfg)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(cfg.seed)
        model: M = build(cfg, "model")
        initialise(model)
    model.eval()
    return model


def _check_memory(cfg: DictConfig) -> None:
    """Refuse a model that this machine's memory cannot hold, before anything is allocated.

    It is built on the meta device with one block, and with one more of each kind, which gives the size of all.

    Raises:
        ConfigError: the parameters, what one block makes of a frame's tokens, and the views of a clip need more
            than there is.
    """
    depths = {
        key: cfg[key]
        for key in ("depth", "spatial_depth", "temporal_depth")
        if key in cfg and isinstance(cfg[key], int) and cfg[key] > 1
    }

    def built(**changed: int) -> ViTDet | ViViT | VideoMAE:
        small = OmegaConf.merge(cfg, dict.fromkeys(depths, 1), changed)
        if depths and "window_blocks" in cfg:
            small.window_blocks = []
        with torch.device("meta"):
            return build(small, "model")  # type: ignore[arg-type]

    def size(model: ViTDet | ViViT | VideoMAE) -> int:
        return 4 * sum(x.numel() for x in model.parameters())

    try:
        one = built()
        needed = size(one) + sum(
            (depth - 1) * (size(built(**{key: 2})) - size(one)) for key, depth in depths.items()
        )
        # Of each token its queries, keys and values and the hidden layer of the MLP, in single precision.
        needed += int(4 * one.n_tokens * cfg.dim * (3 + cfg.mlp_ratio))
        if not isinstance(one, ViTDet):  # the views of a clip are in memory together
            needed += 4 * len(one.views) * one.views.frames * 3 * one.size**2
    except (RuntimeError, OverflowError, TypeError) as error:
        raise ConfigError(
            f"the settings below model are too large for any tensor: {_largest(cfg)}"
        ) from error
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise ConfigError(
            f"this model needs at least {needed / 1e9:.3g} GB, and this machine has {memory / 1e9:.3g} GB; the "
            f"largest settings are {_largest(cfg)}"
        )


def _largest(cfg: DictConfig) -> str:
    """The three largest numbers below `model`, for a message."""
    numbers = {str(key): x for key, x in cfg.items() if isinstance(x, int) and key != "seed"}
    return ", ".join(
        f"model.{key}={numbers[key]}" for key in sorted(numbers, key=numbers.__getitem__)[:-4:-1]
    )


def check_fits(variant: Variant | Reduction | None, model: ViTDet | ViViT | VideoMAE) -> None:
    """Refuse what a variant is to do with tokens of which the model has too few.

    Raises:
        ConfigError: the reduction cannot be done with the model, or the pool is larger than grid or window.
    """
    if isinstance(variant, Reduction) and isinstance(model, VideoMAE):
        try:
            variant.check(model)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if isinstance(variant, Variant) and isinstance(model, ViTDet) and variant.pool > 1:
        windows = [block.attn.window_size for block in model.net.blocks]  # type: ignore[union-attr]
        sides: list[int] = [*model.net.grid, *(x for x in windows if isinstance(x, int))]
        if variant.pool > min(sides):
            raise ConfigError(
                f"variant.pool is {variant.pool}, but the smallest grid or window of the model has "
                f"{min(sides)} tokens on a side; it must be at most {min(sides)}"
            )


def _seeded_weights(cfg: DictConfig) -> Weights:
    return Weights(f"seeded initialisation (seed {cfg.seed})")


def _weights_of(*paths: str) -> Weights:
    content = b"".join(Path(path).read_bytes() for path in paths)
    return Weights(
        " with ".join(Path(path).name for path in paths),
        hashlib.sha256(content).hexdigest(),
        classes_in(paths[-1]),  # fine-tuned weights bring a classifier of their own
    )


def _named(weights: Weights, cfg: DictConfig, n_classes: int) -> Weights:
    """Weights with the names of their classes: those of `model.class_names`, else those in the checkpoint."""
    names = weights.classes if cfg.get("class_names") is None else read_class_names(cfg.class_names)
    if names is not None and len(names) != n_classes:
        where = cfg.get("class_names") or cfg.checkpoint
        raise ConfigError(
            f"{where} names {len(names)} classes, but the model has {n_classes}; they must be as many"
        )
    return replace(weights, classes=names)


def _list_left_out(cfg: DictConfig, sentences: Sequence[str]) -> None:
    for sentence in sentences:
        print(f"{cfg.checkpoint}: {sentence}", file=sys.stderr)


def _load_vivit(model: ViViT, paths: Sequence[str], allow_pickle: bool) -> list[str]:
    """Load the published weights and, over them, fine-tuned ones if there are any; what was left out."""
    path, *fine_tuned = paths
    left_out = load_published(model, read_checkpoint(path, allow_pickle), path)
    for path in fine_tuned:
        load_fine_tuned(model, read_checkpoint(path), path)
    return left_out


def build_recipe(cfg: DictConfig) -> Recipe:
    """The training recipe below `train`."""
    recipe: Recipe = build(cfg, "train")
    return recipe


def build_training_data(cfg: DictConfig, where: str) -> Sequence[IndexedVideo]:
    """The annotated videos that the settings below `where` name, to train on."""
    return _one_of(ANNOTATED, where, cfg)


def build_clips(cfg: DictConfig) -> ActionData | Pictures:
    """What `data=...` names, for a model of clips: a data set of labelled clips, or the pictures of one clip."""
    data: ActionData | Pictures | SpriteVideos = _one_of(CLIPS, "data", cfg)
    if not isinstance(data, SpriteVideos):
        return data
    if len(data) > 1:
        raise ConfigError(
            f"data.n_videos is {len(data)}, but these videos have no labels, and a model of clips takes one of them; "
            "it must be 1, or data=sprite_clips for labelled clips"
        )
    return data[0]


def in_model_order(model: ViViT | VideoMAE, weights: Weights, data: ActionData) -> ActionData:
    """Labelled clips with the labels of the model: by the names of the classes where both have names.

    Without them the labels are taken as they are: published checkpoints number Kinetics alphabetically and
    EPIC-Kitchens by verb_class.

    Raises:
        ConfigError: the data have classes that the model has not, or, where either has no names, they are not as
            many.
    """
    names = list(getattr(data, "classes", ()))
    if weights.classes is None or not names:
        check_classes(model, data)
        return data
    if not set(names) <= set(weights.classes):
        raise ConfigError(
            f"{data.name} has other classes than the model: {differences(names, weights.classes)}; choose other data "
            "or weights, or give the names of the model's classes as model.class_names=FILE"
        )
    places = {name: label for label, name in enumerate(weights.classes)}
    return ByName(data, [places[name] for name in names], weights.classes)


def warn_of_generated(weights: Weights, name: str, data: object) -> None:
    """Say so where a model that only knows generated classes looks at something else.

    name: of the data in the config.
    data: those that are labelled with the model's classes are generated ones, too.
    """
    labels = set(getattr(data, "classes", ()))
    generated = name == "sprites" or (labels and labels <= set(weights.classes or ()))
    if weights.classes is not None and not generated:
        for names in (ACTIONS, SpriteVideos.classes):
            if set(weights.classes) == set(names):
                log.warning(
                    "these weights only know classes of generated videos (%s, ...): what they find in other videos "
                    "means nothing",
                    ", ".join(weights.classes[:3]),
                )


def check_classes(model: ViViT | VideoMAE, data: ActionData) -> None:
    """Refuse labelled clips of another number of classes than the model's.

    Raises:
        ConfigError: they are not as many.
    """
    n_classes = model.head.out_features
    if data.n_classes != n_classes:
        selected = isinstance(data, Kinetics)
        hint = (
            " (for a selection of Kinetics, data.labels_from is a csv with all of them)" if selected else ""
        )
        raise ConfigError(
            f"model.classes is {n_classes}, but {data.name} has {data.n_classes} labels; they must be as many{hint}"
        )


def build_data(cfg: DictConfig) -> Sequence[Video]:
    """The videos that `data=...` names."""
    data: Sequence[Video] | Clip | FrameFolder = _one_of(VIDEOS, "data", cfg)
    return [data] if isinstance(data, Clip | FrameFolder) else data


def _one_of(kinds: Mapping[str, type], where: str, cfg: DictConfig) -> Any:
    """The data that a config names, where they are among these; else the message names these."""
    if not issubclass(class_of(cfg, where), tuple(kinds.values())):
        raise ConfigError(f"{where} is {cfg.name}; allowed are {', '.join(sorted(kinds))}")
    return build(cfg, where)


def class_names(
    videos: Sequence[Video | IndexedVideo], n_classes: int, known: Sequence[str] | None = None
) -> Sequence[str]:
    """The names of a model's classes: those of the data where they have ground truth.

    Args:
        videos: the data.
        n_classes: of the model.
        known: the names that the weights carry, if any.

    Raises:
        ConfigError: the data have another number of classes than the model, other names, or another order of them.
    """
    if isinstance(videos, SpriteVideos | VID):
        if len(videos.classes) != n_classes:
            raise ConfigError(
                f"model.n_classes is {n_classes}, but the data have {len(videos.classes)} classes; "
                "they must be as many, so choose other data or another model"
            )
        if known is not None and list(videos.classes) != list(known):
            apart = differences(videos.classes, known)
            raise ConfigError(
                f"the data have other classes than the model: {apart}"
                if apart
                else f"the data have the model's classes in another order; classes.txt must list {', '.join(known)}"
            )
        return videos.classes
    if known is not None:
        return known
    usual = {len(names): names for names in (CLASSES, SpriteVideos.classes)}
    return usual.get(n_classes, [f"class {i}" for i in range(n_classes)])


def check_counts(cfg: DictConfig, where: str, *names: str) -> None:
    """Refuse settings that must be whole numbers of at least 1 and are not; `where` goes before their names.

    Raises:
        ConfigError: one is not; the message names it.
    """
    for name in names:
        if isinstance(cfg[name], bool) or not isinstance(cfg[name], int) or cfg[name] < 1:
            raise ConfigError(f"{where}{name} is {cfg[name]!r}; it must be a whole number of at least 1")


def check_thresholds(table: DictConfig, chosen: str) -> None:
    """Refuse a table's thresholds that are none, and the setting that picks some of them where it picks others.

    Raises:
        ConfigError: the message names the setting.
    """
    try:
        for threshold in table.thresholds:
            check_threshold(threshold, "one of table.thresholds")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    picked = table[chosen] if OmegaConf.is_list(table[chosen]) else [table[chosen]]
    if others := [x for x in picked if x not in table.thresholds]:
        raise ConfigError(
            f"table.{chosen} has {others[0]!r}; it must be among table.thresholds, {list(table.thresholds)}"
        )


def choice(choices: Mapping[str, T], setting: str, name: Any) -> T:
    """What a setting's name stands for.

    Raises:
        ConfigError: there is no such name; the message lists those that there are.
    """
    if name not in choices:
        raise ConfigError(f"{setting} is {name}; allowed are {', '.join(sorted(choices))}")
    return choices[name]


@dataclass(frozen=True)
class Built:
    """What a run's config names.

    label: variant and policy, for the user.
    data_name: of the data, for the user.
    """

    model: Any
    weights: Weights
    variant: Variant | Reduction | None
    policy: Policy | None
    data: Any
    label: str
    data_name: str

    @property
    def labelled(self) -> bool:
        """Whether the data are a data set of labelled clips."""
        return isinstance(self.data, LABELLED)


def build_run(cfg: DictConfig, device: torch.device) -> Built:
    """Model, variant, policy and data of a run; what they cannot do together is refused."""
    data = build_data(cfg.data) if cfg.model.name == "vitdet" else build_clips(cfg.data)
    model: ViTDet | ViViT | VideoMAE
    variant: Variant | Reduction | None
    policy = None
    if cfg.model.name == "videomae":
        if cfg.fast:
            raise ConfigError("fast is true, but videomae has one path alone; leave fast false")
        variant = build_reduction(cfg)
        model, weights = build_videomae(cfg.model, device)
    else:
        variant = build_variant(cfg.variant, cfg.model.name)
        model, weights = build_model(cfg.model, device)
        policy = build_policy(cfg.policy, variant, model.n_tokens)
    check_fits(variant, model)
    warn_of_generated(weights, cfg.data.name, data)
    label = f"{cfg.variant.name} {policy or (variant if isinstance(variant, Reduction) else None) or ''}"
    return Built(model, weights, variant, policy, data, label.strip(), _name_of(cfg.data, data))


def _name_of(cfg: DictConfig, data: Any) -> str:
    """A name of the data: of a data set, of its first video where that is all, or the path of a clip."""
    if isinstance(data, VID):
        return data.description
    if isinstance(data, LABELLED):
        return data.name
    if isinstance(data, Sequence):
        return data[0].name if len(data) == 1 else f"{cfg.name}, {len(data)} videos"
    return str(cfg.get("path", cfg.name))
