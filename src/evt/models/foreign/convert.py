"""A Vision Transformer of timm or transformers as a network of Eventful blocks, by one call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from evt.errors import ConfigError, ConversionError
from evt.eventful import VARIANTS, Blocks, Policy, States, TopR, Variant, state_bytes
from evt.eventful.gate import Buffer
from evt.eventful.layout import Grid
from evt.models.foreign import of_timm, of_transformers
from evt.models.foreign.checks import Original, check_hooks, check_mode, inside, sentence
from evt.models.foreign.family import Family, Refused, expect, kind_of, refuse
from evt.models.foreign.parts import twin
from evt.models.foreign.slot import Given, Slots, flat, laid_out, not_running, run_of, running
from evt.models.foreign.streams import ModelStream

FAMILIES = of_timm.FAMILIES | of_transformers.FAMILIES
"""What can be converted, by the class that it is of."""

OTHERS = {
    **dict.fromkeys(("swin_transformer", "swin", "swinv2"), "its windows shift, and its tokens are merged"),
    **dict.fromkeys(
        ("hiera", "mvitv2", "pvt_v2", "pvt"), "its tokens are pooled between blocks, or keys within them"
    ),
    "segformer": "its tokens are merged between stages, and keys are fewer than queries",
    "beit": "each head adds a table of relative positions; timm's can be",
    "cait": "its heads mix their attention",
    "xcit": "its attention is between channels",
}
"""Why models are not converted that are often met, by the file that has them."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
"""How far what a block adds to its tokens may be from what the original adds, relative to it; of other types 0.1."""


def convert(model: nn.Module) -> Converted:
    """Make a network of Eventful blocks of a model, or of one with a head, a decoder or more around such a model.

    The weights are the model's: the parts of the network have the same dictionaries of parameters, so that what is
    loaded into the model, or trained, or moved to a device, is so in both. All but the blocks is the model's own
    code, and so are the blocks where there is no stream. The network is in evaluation mode and stays there. The model
    stays as it is, but within a stream that was entered; see `ModelStream`.

    Args:
        model: of a class in `FAMILIES`, or with exactly one of these in it; without dropout or in evaluation mode.

    Raises:
        ConversionError: it is something else, or a part of it is; the message names class, module and reason.
    """
    if not isinstance(model, nn.Module):
        raise ConversionError(
            f"convert takes a model, a module of torch; a {type(model).__name__} was given: build the model first"
        )
    try:
        path = _path_to_backbone(model)
        backbone = model.get_submodule(path)
        family = _family_of(backbone)
        check_mode(model.modules())
        family.check(backbone)
        _check_methods(model, backbone, family)
        original = Original(model, backbone, family)
        check_hooks(inside(original.blocks))
        num_prefix_tokens = family.num_prefix_tokens(backbone)
        blocks = Blocks(family.parts(block).block(num_prefix_tokens) for block in original.blocks)
        slots = Slots(blocks, original)
        for number in range(len(blocks)):
            _check_equal(number, slots)
    except AttributeError as error:
        raise ConversionError(
            f"a {kind_of(model)} cannot be converted: {error}, as it has in the version of its library that is known"
        ) from error
    except Refused as refused:
        raise ConversionError(sentence(model, refused, "cannot be converted")) from None
    return Converted(model, path, slots)


class Converted(nn.Module):
    """A network that makes of frames what a model's own features are, or what a whole model gives; see `convert`.

    model: the model once more, whose blocks run as the Eventful ones within a stream.
    blocks: the Eventful ones.
    whole: more than a backbone was converted, which may ask for what is between the blocks.
    path: where in the model its backbone is; nothing where it is the model itself.
    """

    def __init__(self, model: nn.Module, path: str, slots: Slots) -> None:
        super().__init__()
        self.model = twin(model)
        self.blocks = slots.blocks
        self.slots = slots
        self.path = path
        self.whole = bool(path) or slots.family.features is None
        place: Any = self.model.get_submodule(path).get_submodule(slots.family.blocks)
        slots.fill(list(place))
        self._features = whole_features(model) if path else slots.family.features or whole_features(model)
        super().train(False)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Of one frame of the size that the model is made for, (1, C, H, W)."""
        backbone: Any = self.model.get_submodule(self.path)
        return self.slots.family.frame_shape(backbone)

    def train(self, mode: bool = True) -> Converted:
        """Stay in evaluation mode: a stream has no use for dropout."""
        return self

    def states(self, variant: Variant, between: bool | None = None) -> States:
        """Empty states of its blocks; none of the dense model, which is the model's own code.

        between: what each block gives may be asked for, not that of the last alone; None where the model is `whole`.
        """
        if variant.gate is None and variant.pool == 1:
            return States([], variant, self.blocks[0].num_prefix_tokens)  # type: ignore[arg-type]
        states = self.blocks.states(variant)
        if states.once and (self.whole if between is None else between):
            states.between = [Buffer() for _ in states.blocks[1:]]
        return states

    def check(self, variant: Variant) -> None:
        """Refuse a variant that pools, where the tokens form no grid.

        Raises:
            ConfigError: it does.
        """
        if variant.pool > 1 and self.slots.family.form == "BNC":
            raise ConfigError(
                f"the variant pools keys, variant.pool is {variant.pool}, but the grid that tokens form is not known "
                "of a network that was converted; it must be 1, as in the variant `temporal`"
            )

    def stream(
        self,
        variant: str | Variant = "rows",
        policy: Policy | None = None,
        *,
        r: float | None = None,
        grid: Grid | None = None,
    ) -> ModelStream:
        """A new stream of frames (B, C, H, W) on these weights.

        Args:
            variant: or its name in `VARIANTS`.
            policy: which tokens pass, or which frames are run, as the variant takes it.
            r: short for the policy `TopR(r)`: a number of tokens, or their share of all, as 0.125.
            grid: rows and columns of a frame's patches, for variants that move them.

        Raises:
            ConfigError: there is no such variant, or it pools, or takes another policy, or a grid.
            ConversionError: the model was changed since it was converted, see `Original`.
        """
        self.slots.original.check()
        variant = self._variant(variant)
        if r is not None and policy is not None:
            raise ConfigError(
                f"r is short for a policy, TopR({r}), and {policy} was given, too; give one of them"
            )
        try:
            policy = policy if r is None else TopR(r)
            return ModelStream(self, variant, policy, grid)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def state_bytes(self, variant: str | Variant, frame_shape: Sequence[int]) -> int:
        """Bytes that a stream of such frames will keep from its first one on, as `stream.nbytes` will say.

        Args:
            variant: see `stream`.
            frame_shape: (B, C, H, W).

        Raises:
            ConfigError: see `stream`, and a shape that the model does not take.
        """
        variant = self._variant(variant)
        try:
            return state_bytes(self, variant, frame_shape)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def _variant(self, variant: str | Variant) -> Variant:
        """The variant that a name stands for.

        Raises:
            ConfigError: there is none, or it pools.
        """
        if isinstance(variant, str):
            if variant not in VARIANTS:
                raise ConfigError(f"there is no variant {variant!r}; there are {', '.join(VARIANTS)}")
            variant = VARIANTS[variant]
        self.check(variant)
        return variant

    def forward(self, x: Tensor, states: States | None = None, policy: Policy | None = None) -> Any:
        """Run frames (B, C, H, W), as the model takes them, to its features, or to what a whole model gives.

        Without states, within a stream of this network that was entered, they are a frame of that; and else the
        model's own code runs.

        Raises:
            ConversionError: the model was changed, see `stream`; with states, it does not run its blocks, or runs
                them more than once, or is compiled.
        """
        if torch.compiler.is_dynamo_compiling():
            if states is not None:
                raise ConversionError("torch.compile takes a converted network as it is, without states")
            return self._features(self.model, x)
        self.slots.original.check()
        if states is None and run_of(self.slots) is not None:
            return self._features(self.model, x)
        with running(self.slots, Given(states, policy)) as run:
            out = self._features(self.model, x)
        if states is not None and states.blocks and (run.frames != 1 or not run.done):
            raise ConversionError(
                f"the model ran its blocks {run.frames} times, the last time {run.done} of {len(self.blocks)} of "
                "them; a stream that is called must have each frame once: enter it, and call the model"
            )
        return out


def whole_features(model: nn.Module) -> Callable[[Any, Tensor], Any]:
    """What runs a whole model on frames: by keyword, where it takes pictures as those of transformers do."""
    if "pixel_values" in inspect.signature(model.forward).parameters:
        return lambda model, frame: model(pixel_values=frame)
    return lambda model, frame: model(frame)


def _path_to_backbone(model: nn.Module) -> str:
    """Where in a model the one is that can be converted; nothing where it is the model itself.

    Raises:
        Refused: there is none, or more than one.
    """
    found: dict[nn.Module, str] = {}
    for path, part in model.named_modules():
        inside = any(path.startswith(f"{other}." if other else "") for other in found.values())
        if not inside and any(kind_of(cls) in FAMILIES for cls in type(part).__mro__):
            found[part] = path
    if len(found) > 1:
        names = ", ".join(f"{path} (a {kind_of(part)})" for part, path in found.items())
        refuse(model, f"{len(found)} of its parts can be, {names}; convert one of them, or each for itself")
    if found:
        return found.popitem()[1]
    for part in model.modules():
        if reason := OTHERS.get(_file_of(part)):
            refuse(part, reason)
    known = "; ".join(
        f"of {library} {', '.join(kind.rsplit('.', 1)[1] for kind in FAMILIES if kind.startswith(library))}"
        for library in ("timm", "transformers")
    )
    return refuse(model, f"it is not known to be made of plain blocks (known are {known})")


def _file_of(module: nn.Module) -> str:
    """What the file is called that has its class."""
    return type(module).__module__.rpartition(".")[2].removeprefix("modeling_")


def _family_of(backbone: nn.Module) -> Family:
    """What is known of a model.

    Raises:
        Refused: it is of a subclass that runs its blocks by code of its own.
    """
    cls = next(cls for cls in type(backbone).__mro__ if kind_of(cls) in FAMILIES)
    family = FAMILIES[kind_of(cls)]
    if getattr(type(backbone), family.method) is not getattr(cls, family.method):
        refuse(backbone, f"its {family.method} is not that of {kind_of(cls)}, and may do anything")
    return family


def _check_methods(model: nn.Module, backbone: nn.Module, family: Family) -> None:
    """Refuse code of others in the place of what is relied upon."""
    if family.encoder is not None:
        expect(backbone.get_submodule(family.blocks.rpartition(".")[0]), backbone, family.encoder)
    for module in model.modules():
        # As a compiled one, which would go on running the model's own parts.
        if replaced := {"forward", family.method} & vars(module).keys():
            refuse(module, f"its {replaced.pop()} was replaced, and may do anything")


@torch.no_grad()
def _check_equal(number: int, slots: Slots) -> None:
    """Run a block beside the original on a few random tokens, in case a version of a library computes otherwise."""
    original, block, family = slots.originals[number], cast(Any, slots.blocks[number]), slots.family
    first, last = (
        next(module for module in part.modules() if isinstance(module, nn.Linear))
        for part in (block.attn.qkv, block.attn.proj)
    )
    weight, side = first.weight, block.attn.window_size or 2
    # Without padding a global block takes a whole grid alone, which may be large; it is of the same class as others.
    if weight.is_meta or (not family.pads and block.attn.window_size is None):
        return
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(weight.device, weight.dtype)

    # A window and, where that may be, a padded one.
    grid = (side + family.pads, side)
    n_places = grid[0] * grid[1]
    n_tokens = block.num_prefix_tokens + n_places
    if (pair_bias := block.attn.pair_bias) is not None:
        n_tokens = pair_bias().shape[-1]
    # Small, so that what a block adds is not lost in rounding.
    x = 0.01 * random(1, n_tokens, first.in_features)
    cos, sin = random(2, n_places, last.in_features // block.attn.num_heads)
    arguments = family.arguments(cos, sin)
    own: Any = slots.of_grid(None if family.form == "BNC" else grid, weight.device)[number]
    with torch.autocast(weight.device.type, enabled=False), not_running():
        # Without the hooks around it, which are called within streams as they are outside of them.
        out = original.forward(laid_out(x, family.form, None if family.form == "BNC" else grid), **arguments)
        expected, _ = flat(out[0] if family.returns_tuple else out, family.form)
        found = own(x, rotary=slots.turns(arguments, x, grid, number))
    error = torch.linalg.vector_norm(found - expected)
    if error > TOLERANCE.get(x.dtype, 0.1) * torch.linalg.vector_norm(expected - x):
        refuse(original, "on random tokens it does not compute what its converted block does")
