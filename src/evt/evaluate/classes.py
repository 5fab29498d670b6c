"""The names of classes: those that the data have must be those that the model knows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from evt.data.actions import ActionData
from evt.data.by_name import ByName, differences
from evt.data.samples import IndexedVideo
from evt.data.sprites import ACTIONS, SpriteVideos
from evt.data.vid_annotations import CLASSES
from evt.data.video import Video
from evt.errors import ConfigError
from evt.models.loading import Weights

log = logging.getLogger(__name__)


class Classifier(Protocol):
    """A model that tells classes apart."""

    @property
    def n_classes(self) -> int:
        """How many."""


def class_names(
    videos: Sequence[Video | IndexedVideo], n_classes: int, known: Sequence[str] | None = None
) -> Sequence[str]:
    """The names of a model's classes: those of the data where they have ground truth, else those of its weights.

    Raises:
        ConfigError: the data have another number of classes than the model, other names, or another order of them.
    """
    classes: Sequence[str] | None = getattr(videos, "classes", None)
    if classes is not None:
        if len(classes) != n_classes:
            raise ConfigError(
                f"model.n_classes is {n_classes}, but the data have {len(classes)} classes; "
                "they must be as many, so choose other data or another model"
            )
        if known is not None and list(classes) != list(known):
            apart = differences(classes, known)
            raise ConfigError(
                f"the data have other classes than the model: {apart}"
                if apart
                else f"the data have the model's classes in another order; classes.txt must list {', '.join(known)}"
            )
        return classes
    if known is not None:
        return known
    usual = {len(names): names for names in (CLASSES, SpriteVideos.classes)}
    return usual.get(n_classes, [f"class {i}" for i in range(n_classes)])


def in_model_order(model: Classifier, weights: Weights, data: ActionData) -> ActionData:
    """Labelled clips with the labels of the model: by the names of the classes where both have names.

    Without them the labels are taken as they are: published checkpoints number Kinetics alphabetically and
    EPIC-Kitchens by verb_class.

    Raises:
        ConfigError: the data have classes that the model has not, or, where either has no names, they are not as
            many.
    """
    names = list(data.classes)
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


def check_classes(model: Classifier, data: ActionData) -> None:
    """Refuse labelled clips of another number of classes than the model's.

    Raises:
        ConfigError: they are not as many.
    """
    if data.n_classes != model.n_classes:
        hint = getattr(data, "if_other_classes", "")
        raise ConfigError(
            f"model.classes is {model.n_classes}, but {data.name} has {data.n_classes} labels; they must be as many"
            + (f" ({hint})" if hint else "")
        )


def warn_of_generated(weights: Weights, data: object) -> None:
    """Say so where a model that only knows generated classes looks at something else.

    data: a data set; those that are labelled with the model's classes are generated ones, too.
    """
    if weights.classes is None or getattr(data, "generated", False):
        return
    known, labels = set(weights.classes), set(getattr(data, "classes", ()))
    if labels and labels <= known:
        return
    if known in (set(ACTIONS), set(SpriteVideos.classes)):
        log.warning(
            "these weights only know classes of generated videos (%s, ...): what they find in other videos "
            "means nothing",
            ", ".join(weights.classes[:3]),
        )
