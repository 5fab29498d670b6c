"""A Vision Transformer of timm or transformers as a network of Eventful blocks, by one call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evt.errors import ConfigError, ConversionError
from evt.eventful import VARIANTS, Blocks, Policy, States, Stream, TopR, Variant
from evt.models.foreign import of_timm, of_transformers
from evt.models.foreign.family import Family, Refused, expect, kind_of, refuse
from evt.models.foreign.parts import twin
from evt.models.foreign.slot import Slot, flat, laid_out, run

FAMILIES = of_timm.FAMILIES | of_transformers.FAMILIES
"""What can be converted, by the class that it is of."""

OTHERS = {
    **dict.fromkeys(("swin_transformer", "swin", "swinv2"), "its windows shift, and its tokens are merged"),
    **dict.fromkeys(
        ("hiera", "mvitv2", "pvt_v2", "pvt"), "its tokens are pooled between blocks, or keys within them"
    ),
    **dict.fromkeys(("beit", "vision_transformer_relpos"), "each head adds a table of relative positions"),
    "cait": "its heads mix their attention",
    "xcit": "its attention is between channels",
}
"""Why models are not converted that are often met, by the file that has them."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
"""How far what a block adds to its tokens may be from what the original adds, relative to it; of other types 0.1."""


def convert(model: nn.Module) -> Converted:
    """Make a network of Eventful blocks of a model, which stays as it is.

    The weights are the model's: the parts of the network have the same dictionaries of parameters, so that what is
    loaded into the model, or trained, or moved to a device, is so in both. What comes before the blocks and after
    them is the model's own code. The network is in evaluation mode and stays there.

    Args:
        model: of a class in `FAMILIES`, without dropout or in evaluation mode.

    Raises:
        ConversionError: it is something else, or a part of it is; the message names class, module and reason.
    """
    try:
        family = _family_of(model)
        _check_random(model)
        family.check(model)
        _check_methods(model, family)
        originals: Any = model.get_submodule(family.blocks)
        _check_hooks(originals)
        num_prefix_tokens = family.num_prefix_tokens(model)
        blocks = Blocks(family.parts(original).block(num_prefix_tokens) for original in originals)
        slot = Slot(blocks, family, family.rotary(model))
        for number, original in enumerate(originals):
            _check_equal(original, number, slot, family)
    except AttributeError as error:
        raise ConversionError(
            f"a {kind_of(model)} cannot be converted: {error}, as it has in the version of its library that is known"
        ) from error
    except Refused as refused:
        paths = [path for path, module in model.named_modules() if module is refused.module and path]
        part = f": {paths[0]} is a {kind_of(refused.module)}" if paths else ""
        raise ConversionError(f"a {kind_of(model)} cannot be converted{part}: {refused.reason}") from None
    return Converted(model, family, slot)


class Converted(nn.Module):
    """A network that makes of frames what a model's own features are; see `convert`.

    model: the model once more, with a single module in the place of its blocks.
    """

    def __init__(self, model: nn.Module, family: Family, slot: Slot) -> None:
        super().__init__()
        originals: Any = model.get_submodule(family.blocks)
        place = type(originals)([slot] if isinstance(originals, nn.ModuleList) else slot)
        self.model = twin(model, lambda module: place if module is originals else None)
        self._family = family
        super().train(False)

    @property
    def blocks(self) -> Blocks:
        """The Eventful blocks."""
        place: Any = self.model.get_submodule(self._family.blocks)
        blocks: Blocks = place[0].blocks
        return blocks

    def train(self, mode: bool = True) -> Converted:
        """Stay in evaluation mode: a stream has no use for dropout."""
        return self

    def states(self, variant: Variant) -> States:
        """Empty states of its blocks."""
        return self.blocks.states(variant)

    def check(self, variant: Variant) -> None:
        """Refuse a variant that pools, where the tokens form no grid.

        Raises:
            ConfigError: it does.
        """
        if variant.pool > 1 and self._family.form == "BNC":
            raise ConfigError(
                f"variant.pool is {variant.pool}, but a converted network knows of no grid of tokens; it must be 1"
            )

    def stream(
        self, variant: str | Variant = "rows", policy: Policy | None = None, *, r: float | None = None
    ) -> Stream:
        """A new stream of frames (B, C, H, W) on these weights.

        Args:
            variant: or its name in `VARIANTS`.
            policy: which tokens pass, or which frames are run, as the variant takes it.
            r: short for the policy `TopR(r)`: a number of tokens, or their share of all, as 0.125.

        Raises:
            ConfigError: there is no such variant, or it pools, or takes another policy.
        """
        if isinstance(variant, str):
            if variant not in VARIANTS:
                raise ConfigError(f"there is no variant {variant!r}; there are {', '.join(VARIANTS)}")
            variant = VARIANTS[variant]
        self.check(variant)
        if r is not None:
            if policy is not None:
                raise ConfigError(
                    f"r is short for a policy, TopR({r}), and {policy} was given, too; give one of them"
                )
            policy = TopR(r)
        try:
            return Stream(self, variant, policy)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def forward(self, x: Tensor, states: States | None = None, policy: Policy | None = None) -> Tensor:
        """Run frames (B, C, H, W), as the model takes them, to its features; densely without states."""
        with run(states, policy):
            return self._family.features(self.model, x)


def _family_of(model: nn.Module) -> Family:
    """What is known of a model.

    Raises:
        Refused: nothing is; or it is of a subclass that runs its blocks by code of its own.
    """
    for cls in type(model).__mro__:
        family = FAMILIES.get(kind_of(cls))
        if family is None:
            continue
        if getattr(type(model), family.method) is not getattr(cls, family.method):
            refuse(model, f"its {family.method} is not that of {kind_of(cls)}, and may do anything")
        return family
    inside = [
        f"{path} can be, which is a {kind_of(part)}"
        for path, part in model.named_modules()
        if any(kind_of(cls) in FAMILIES for cls in type(part).__mro__)
    ]
    if inside:
        refuse(model, f"not as a whole; its part {inside[0]}")
    file = type(model).__module__.rpartition(".")[2].removeprefix("modeling_")
    known = "; ".join(
        f"of {library} {', '.join(kind.rsplit('.', 1)[1] for kind in FAMILIES if kind.startswith(library))}"
        for library in ("timm", "transformers")
    )
    return refuse(
        model, f"{OTHERS.get(file, 'it is not known to be made of plain blocks')} (known are {known})"
    )


def _check_random(model: nn.Module) -> None:
    """Refuse what leaves something out at random."""
    for module in model.modules():
        # Attention of transformers drops by a function, and has the share as a number.
        names = (
            ("p", "prob", "drop_prob")
            if "Drop" in type(module).__name__
            else ("dropout", "attention_dropout")
        )
        shares = [share for name in names if isinstance(share := getattr(module, name, None), float)]
        if module.training and any(shares):
            refuse(
                module, f"in training mode it drops {max(shares):g} of its input; call model.eval() before"
            )


def _check_methods(model: nn.Module, family: Family) -> None:
    """Refuse code of others in the place of what is relied upon."""
    if family.encoder is not None:
        expect(model.get_submodule(family.blocks.rpartition(".")[0]), model, family.encoder)
    for module in model.modules():
        # As a compiled one, which would go on running the model's own parts.
        if replaced := {"forward", family.method} & vars(module).keys():
            refuse(module, f"its {replaced.pop()} was replaced, and may do anything")


def _check_hooks(blocks: nn.Module) -> None:
    """Refuse hooks on blocks and in them, which would not be called any more."""
    for module in blocks.modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        # transformers has its own, for `output_hidden_states`.
        if any(getattr(hook, "__module__", None) != "transformers.utils.output_capturing" for hook in hooks):
            refuse(module, "it has forward hooks, which would not be called")


@torch.no_grad()
def _check_equal(original: nn.Module, number: int, slot: Slot, family: Family) -> None:
    """Run a block beside the original on a few random tokens, in case a version of a library computes otherwise."""
    block: Any = slot.blocks[number]
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
    # Small, so that what a block adds is not lost in rounding.
    x = 0.01 * random(1, block.num_prefix_tokens + n_places, first.in_features)
    cos, sin = random(2, n_places, last.in_features // block.attn.num_heads)
    arguments = family.arguments(cos, sin)
    out = original(laid_out(x, family.form, None if family.form == "BNC" else grid), **arguments)
    expected, _ = flat(out[0] if family.returns_tuple else out, family.form)
    own: Any = slot.of_grid(None if family.form == "BNC" else grid, weight.device)[number]
    turns = slot.turns(arguments, x, grid)
    error = torch.linalg.vector_norm(own(x, rotary=turns and turns[number]) - expected)
    if error > TOLERANCE.get(x.dtype, 0.1) * torch.linalg.vector_norm(expected - x):
        refuse(original, "on random tokens it does not compute what its converted block does")
