"""What a conversion relies on beside the blocks, when it is made and whenever it is used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from evt.errors import ConversionError
from evt.models.foreign.family import Family, Refused, kind_of, refuse


def sentence(model: nn.Module, refused: Refused, what: str) -> str:
    """What is said of a model for what a module of it is: "a Model cannot be converted: blocks.0 is a ..."."""
    paths = [path for path, module in model.named_modules() if module is refused.module and path]
    part = f": {paths[0]} is a {kind_of(refused.module)}" if paths else ""
    return f"a {kind_of(model)} {what}{part}: {refused.reason}"


def check_mode(modules: Iterable[nn.Module]) -> None:
    """Refuse what leaves something out at random, or is of the other pictures in a batch, as in training mode."""
    for module in modules:
        if not module.training:
            continue
        if isinstance(module, _BatchNorm):
            refuse(module, "in training mode it normalises by the batch; call model.eval() before")
        # Attention of transformers drops by a function, and has the share as a number.
        names = (
            ("p", "prob", "drop_prob")
            if "Drop" in type(module).__name__
            else ("dropout", "attention_dropout")
        )
        shares = [share for name in names if isinstance(share := getattr(module, name, None), float)]
        if any(shares):
            refuse(
                module, f"in training mode it drops {max(shares):g} of its input; call model.eval() before"
            )


def check_hooks(modules: Iterable[nn.Module]) -> None:
    """Refuse hooks of modules in blocks, which would not be called any more."""
    for module in modules:
        if not module._forward_hooks and not module._forward_pre_hooks:
            continue
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        # transformers has its own, for `output_hidden_states`.
        if any(getattr(hook, "__module__", None) != "transformers.utils.output_capturing" for hook in hooks):
            refuse(module, "it has forward hooks, which would not be called")


def inside(blocks: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules in blocks, without the blocks."""
    return [module for block in blocks for module in list(block.modules())[1:]]


class Original:
    """A model that was converted, and what it was then.

    Args:
        model: the whole of it.
        backbone: what has the blocks.
        family: what is known of that.
    """

    def __init__(self, model: nn.Module, backbone: nn.Module, family: Family) -> None:
        self.model, self.backbone, self.family = model, backbone, family
        blocks: Any = backbone.get_submodule(family.blocks)
        self.blocks: list[nn.Module] = list(blocks)
        configs = [getattr(module, "config", None) for module in model.modules()]
        self._configs = list({id(config): config for config in configs}.values())
        self._inside = inside(self.blocks)
        self._children = [(module, tuple(module._modules.values())) for module in model.modules()]

    def check(self) -> None:
        """Refuse the model where it is not what was converted any more; this is fast, for every frame.

        Raises:
            ConversionError: modules of it were replaced, have another forward or, in its blocks, hooks; or it is in
                training mode, and that matters.
        """
        try:
            for module, children in self._children:
                if tuple(module._modules.values()) != children:
                    refuse(module, "modules in it were replaced, added or removed; convert the model again")
                if "forward" in vars(module):
                    refuse(module, "its forward was replaced; convert the model again")
            check_hooks(self._inside)
            if any(module.training for module, _ in self._children):
                check_mode(module for module, _ in self._children)
                self.family.check(self.backbone)
        except Refused as refused:
            raise ConversionError(
                sentence(self.model, refused, "was changed since it was converted")
            ) from None

    def check_asked(self) -> None:
        """Refuse a model whose config asks for what Eventful blocks do not give.

        Raises:
            ConversionError: it does.
        """
        if any(getattr(config, "output_attentions", False) is True for config in self._configs):
            raise ConversionError(
                "config.output_attentions is true, and the blocks of a converted network give no attention: set it "
                "to false within streams"
            )
