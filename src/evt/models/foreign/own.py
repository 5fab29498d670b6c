"""A user's own Vision Transformer, of timm or transformers, as a model that the commands run on videos."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from safetensors import SafetensorError
from torch import Tensor, nn

from evt.data.video import Frame
from evt.errors import CheckpointError, ConfigError
from evt.eventful import Policy, States, Stream, Variant
from evt.models.checkpoints import BROKEN, files_of, load_tensors, read_checkpoint
from evt.models.features import PIXEL_MEAN, PIXEL_STD, Features
from evt.models.foreign.convert import Converted, convert
from evt.models.foreign.libraries import first_line, library
from evt.models.frame_model import FrameModel
from evt.models.letterbox import Box, letterboxed


@dataclass(frozen=True)
class Pixels:
    """How a model wants its pixels: (scale x - mean) / std, of x in [0, 255].

    mean, std: of red, green and blue.
    source: who says so.
    """

    mean: Sequence[float]
    std: Sequence[float]
    scale: float
    source: str

    def __str__(self) -> str:
        mean, std = (", ".join(f"{x:g}" for x in values) for values in (self.mean, self.std))
        return f"pixels are normalised by mean {mean} and deviation {std}, as {self.source}"


class Tokens(nn.Module):
    """A converted network that gives its features as tokens (B, N, D), also where the model makes a map of them.

    net: the network.
    grid: rows and columns of the patches of a frame, which are the last of its tokens.
    """

    def __init__(self, net: Converted, grid: tuple[int, int]) -> None:
        super().__init__()
        self.net, self.grid = net, grid

    def states(self, variant: Variant) -> States:
        """Empty states of its blocks."""
        return self.net.states(variant)

    def forward(self, x: Tensor, states: States | None = None, policy: Policy | None = None) -> Tensor:
        """Run frames (B, 3, H, W); see `Converted`."""
        out = self.net(x, states, policy)
        return out if out.ndim == 3 else out.flatten(2).transpose(1, 2)


class OwnModel(FrameModel):
    """A model of timm or transformers, converted, on frames that are resized and padded to a square.

    Args:
        model: that `evt.convert` takes.
        patch_size: side of a patch, in pixels, or the two sides.
        size: side of the square in pixels; any other than the model's own, if it takes that.
        pixels: how it wants them.

    Raises:
        ConversionError: the model cannot be converted.
        ConfigError: its patches are no squares, size is no multiple of their side, or it is more than a backbone;
            or, on torch's meta device, it cannot run pictures of that size.
    """

    predicts = "features"
    n_classes = 1
    pixel_std: Tensor

    def __init__(self, model: nn.Module, patch_size: Any, size: int, pixels: Pixels) -> None:
        super().__init__()
        sides = {patch_size} if isinstance(patch_size, int) else set(patch_size)
        if len(sides) != 1:
            raise ConfigError(
                f"the patches of this model are {tuple(patch_size)} pixels; they must be squares"
            )
        (self.patch_size,) = sides
        if size < self.patch_size or size % self.patch_size:
            raise ConfigError(
                f"model.size is {size}; it must be a positive multiple of the patch size, {self.patch_size}"
            )
        self.size, self.pixels = size, pixels
        net = convert(model.eval())
        if net.whole:
            raise ConfigError(
                f"a {type(model).__name__} is more than a backbone, and what it gives are no features of patches; "
                f"the model must be its {net.path or 'backbone'} alone"
            )
        self.net = Tokens(net, (size // self.patch_size,) * 2)
        # The model as its library knows it; no part of this one, since its parameters are the network's.
        self._foreign = (model,)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(pixels, name)).view(-1, 1, 1)
            self.register_buffer(f"pixel_{name}", values, persistent=False)
        # There it costs nothing, and a model is built there before it is built in memory.
        if self.pixel_mean.is_meta:
            self._try()

    def _try(self) -> None:
        """Refuse a size that the model cannot run."""
        try:
            with torch.no_grad():
                out = self.net(self.blank())
        except (ValueError, RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"model.size is {self.size}, and the model cannot run pictures of that size: {first_line(error)}"
            ) from error
        if out.shape[1] != self.n_tokens:
            raise ConfigError(
                f"the model makes {out.shape[1]} features of the {self.n_tokens} tokens of a frame; they must be as "
                "many"
            )

    @property
    def foreign(self) -> Any:
        """The model as its library knows it, whose weights these are."""
        return self._foreign[0]

    @property
    def n_tokens(self) -> int:
        """Tokens of a frame, those that stand for no place among them."""
        rows, columns = self.net.grid
        block: Any = self.net.net.blocks[0]
        n_prefix: int = block.num_prefix_tokens
        return n_prefix + rows * columns

    def initialise(self) -> None:
        """Do nothing: the library has drawn the weights."""

    def check(self, variant: Variant) -> None:
        """Refuse a variant that the network cannot run; see `Converted.check`."""
        self.net.net.check(variant)

    def stream(self, variant: Variant, policy: Policy | None = None) -> Stream:
        """A new video stream through the Transformer."""
        return Stream(self.net, variant, policy)

    def preprocess(self, image: Tensor) -> Tensor:
        """Resize a picture with its aspect kept, pad it on both sides and normalise it; see `FrameModel`."""
        return self.normalise(letterboxed(image, self.size)).unsqueeze(0)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise pixels in [0, 255], (..., 3, H, W), and put them on the model's device."""
        return (self.pixels.scale * pixels.to(self.pixel_mean.device) - self.pixel_mean) / self.pixel_std

    def decode(self, outputs: Sequence[Tensor], frame: Frame) -> Features:
        """The features of the patches that show some of a frame, from the stream's output; there is no map."""
        (tokens,) = outputs
        rows, columns = self.net.grid
        height, width = frame.image.shape[-2:]
        box = Box.of(height, width, self.size)
        features = box.patches(tokens[0, -rows * columns :].unflatten(0, self.net.grid), self.patch_size)
        return Features(
            None,
            features.flatten(0, 1),
            (features.shape[0], features.shape[1]),
            box.beyond(self.patch_size),
            (box.height, box.width),
        )


class TimmModel(OwnModel):
    """A model of timm; nothing is downloaded.

    Args:
        architecture: as `timm.create_model` knows it; with a tag, as in vit_small_patch16_224.dino, its pixels are
            normalised as those weights want it.
        size: side in pixels of the square that frames are resized and padded to; None is the model's own.

    Raises:
        ConfigError: timm is not installed, or knows no such architecture; and see `OwnModel`.
    """

    def __init__(self, architecture: str, size: PositiveInt | None = None) -> None:
        timm = library("timm")
        if not timm.is_model(architecture):
            near = difflib.get_close_matches(architecture, timm.list_models(), 3)
            raise ConfigError(
                f"model.architecture is {architecture}, which timm {timm.__version__} does not know"
                + (f"; near are {', '.join(near)}" if near else "")
            )
        settings = {} if size is None else {"img_size": size}
        try:
            model = timm.create_model(architecture, pretrained=False, num_classes=0, **settings)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"timm cannot build model.architecture={architecture} with model.size={size}: {first_line(error)}"
            ) from error
        given = model.pretrained_cfg
        own = Pixels(given["mean"], given["std"], 1 / 255, "its pretrained_cfg says")
        # Of what is not known to have patches, `convert` says what it is.
        patch_size = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
        super().__init__(model, patch_size, size or given["input_size"][-1], own)

    def load(self, paths: Sequence[str], allow_pickle: bool = False) -> list[str]:
        """Load a file in any of the forms that timm reads for the architecture, with positions of any size.

        Returns:
            What it holds and the model has no use for, and how pixels are normalised, a sentence each.

        Raises:
            CheckpointError: see `load_checkpoint`.
        """
        (path,) = paths
        tensors = read_checkpoint(path, allow_pickle)
        # Renames what other programs wrote, and resizes positions and patches.
        renamed = getattr(sys.modules[type(self.foreign).__module__], "checkpoint_filter_fn", None)
        try:
            tensors = renamed(tensors, self.foreign) if renamed else tensors
        except BROKEN as error:
            raise CheckpointError(
                f"{path}: timm cannot read it for this architecture: {first_line(error)}"
            ) from error
        unused = load_tensors(self.foreign.state_dict(), tensors, path)
        return [*(f"not loaded: {name}" for name in unused), str(self.pixels)]


class TransformersModel(OwnModel):
    """A model of transformers in a folder of this machine, as `save_pretrained` writes it; nothing is downloaded.

    Args:
        path: the folder, with config.json, *.safetensors and, if need be, preprocessor_config.json.
        size: see `TimmModel`.

    Raises:
        ConfigError: transformers is not installed, path is no such folder, or transformers knows no such model; and
            see `OwnModel`.
    """

    def __init__(self, path: str, size: PositiveInt | None = None) -> None:
        folder = Path(path)
        if not folder.is_dir():
            raise ConfigError(
                f"model.path is {path}, which is no folder of this machine; it must be one that `save_pretrained` "
                "wrote, or that was downloaded before: names of models are not looked up"
            )
        if not (folder / "config.json").is_file():
            raise ConfigError(f"model.path is {path}, a folder without a config.json; it must have one")
        transformers = library("transformers")
        try:
            config = transformers.AutoConfig.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
            model = transformers.AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: transformers cannot build this model: {first_line(error)}") from error
        # Of a model that is more, such as CLIP, only what sees pictures.
        self._path = convert(model.eval()).path
        backbone = model.get_submodule(self._path)
        config = getattr(backbone, "config", config)
        own = getattr(config, "image_size", None)
        own = own if isinstance(own, int | None) else max(own)
        if size is None and own is None:
            raise ConfigError(f"{path}/config.json has no image_size, so that model.size must be given")
        super().__init__(backbone, getattr(config, "patch_size", 1), size or own, _pixels_of(folder))  # type: ignore[arg-type]

    def load(self, paths: Sequence[str], allow_pickle: bool = False) -> list[str]:
        """Load the *.safetensors of a folder, also where they are of the model with a head.

        Returns:
            What they hold and the model has no use for, and how pixels are normalised, a sentence each.

        Raises:
            CheckpointError: there are none, or a parameter is missing or does not fit.
        """
        (path,) = paths
        if not files_of(path):
            raise CheckpointError(
                f"{path}: there are no weights in it, a file that ends in .safetensors; model.checkpoint=null draws "
                "them from the seed"
            )
        try:
            loaded, info = library("transformers").AutoModel.from_pretrained(
                path,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
        except (OSError, SafetensorError, *BROKEN) as error:
            raise CheckpointError(f"{path}: transformers cannot load it: {first_line(error)}") from error
        prefix = f"{self._path}." if self._path else ""
        # A pooler makes one vector of a picture, and no feature depends on it.
        missing = sorted(
            name
            for name in info["missing_keys"]
            if name.startswith(prefix) and not name.startswith(f"{prefix}pooler.")
        )
        if missing:
            raise CheckpointError(f"{path}: {missing[0]} is missing (of {len(missing)} parameters that are)")
        load_tensors(self.foreign.state_dict(), loaded.get_submodule(self._path).state_dict(), path)
        unused = sorted(info["unexpected_keys"])
        return [*(f"not loaded: {name}" for name in unused), str(self.pixels)]


def _pixels_of(folder: Path) -> Pixels:
    """What preprocessor_config.json says, or ImageNet's mean and deviation where there is none.

    Raises:
        ConfigError: it cannot be read, or says something else than three numbers.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return Pixels(
            PIXEL_MEAN, PIXEL_STD, 1 / 255, "over ImageNet, since there is no preprocessor_config.json"
        )
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        scale = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
        mean, std = (
            [float(x) for x in said.get(f"image_{name}", default)]
            if said.get("do_normalize", True)
            else [neutral] * 3
            for name, default, neutral in (("mean", PIXEL_MEAN, 0.0), ("std", PIXEL_STD, 1.0))
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: cannot be read as a preprocessor's config ({first_line(error)})"
        ) from error
    if not (len(mean) == len(std) == 3 and all(std)):
        raise ConfigError(f"{path}: image_mean is {mean} and image_std {std}; each must be three numbers")
    return Pixels(mean, std, scale, "preprocessor_config.json says")
