"""What is done to a model after it was converted, and what is given in the place of models and frames."""

from __future__ import annotations

import copy
import io
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import evt
from evt.errors import ConfigError, ConversionError
from evt.eventful.policy import Thresholds
from evt.eventful.selectors import Regions
from evt.models.foreign.examples import EXAMPLES
from tests.models.foreign.test_convert import DINOV2, PLAIN, VITDET, built

GRID = (4, 4)


def converted() -> tuple[Any, Any]:
    model = built(PLAIN)
    return model, evt.convert(model)


def add_hook(model: Any) -> None:
    model.blocks[1].attn.register_forward_hook(lambda module, inputs, output: 2 * output)


def replace_layer(model: Any) -> None:
    model.blocks[0].mlp.fc1 = nn.Linear(32, 128)


def replace_forward(model: Any) -> None:
    model.blocks[0].attn.forward = lambda x, **others: x


def replace_block(model: Any) -> None:
    model.blocks[1] = copy.deepcopy(model.blocks[1])


def append_block(model: Any) -> None:
    model.blocks.append(copy.deepcopy(model.blocks[1]))


def prune(model: Any) -> None:
    model.prune_intermediate_layers([0])


def replace_norm(model: Any) -> None:
    model.norm = nn.Identity()


def add_classifier(model: Any) -> None:
    model.reset_classifier(5)


def train(model: Any) -> None:
    model.pos_drop.p = 0.1
    model.train()


@pytest.mark.parametrize(
    "change",
    [
        add_hook,
        replace_layer,
        replace_forward,
        replace_block,
        append_block,
        prune,
        replace_norm,
        add_classifier,
        train,
    ],
)
def test_models_that_were_changed_are_not_run_as_they_were(change: Callable[[Any], None]) -> None:
    """Else a stream would silently give what another model makes of a frame."""
    model, net = converted()
    before, frame = net.stream("rows", r=4), PLAIN.pictures(1, GRID)
    before(frame)
    change(model)
    for run in (before, net):
        with pytest.raises(ConversionError, match="since it was converted"):
            run(frame)
    with pytest.raises(ConversionError, match="since it was converted"):
        net.stream("rows", r=4)
    with pytest.raises(ConversionError, match="since it was converted"), before:
        pass


def test_what_is_refused_leaves_a_stream_as_it_was() -> None:
    model, net = converted()
    frame = PLAIN.pictures(1, GRID)
    stream, skipping = net.stream("rows", r=4), net.stream("skip", evt.Every(9))
    for run in (stream, skipping):
        run(frame)
    train(model)
    for run in (stream, skipping):
        with pytest.raises(ConversionError, match="since it was converted"):
            run(frame)
    model.eval()
    with evt.count_ops() as ops:
        skipping(frame)
    assert not ops
    assert stream.flushed


def test_what_is_done_while_a_stream_is_entered_is_seen() -> None:
    model, net = converted()
    frame = PLAIN.pictures(1, GRID)
    with net.stream("rows", r=4):
        model.forward_features(frame)
        train(model)
        with pytest.raises(ConversionError, match=r"pos_drop is a .*Dropout: in training mode it drops 0.1"):
            model.forward_features(frame)
        model.eval()
        model.forward_features(frame)


def test_normalisation_by_the_batch_is_refused() -> None:
    """Outside of the blocks, whose pictures would be another in each batch."""
    whole = nn.Sequential(nn.BatchNorm2d(3), built(PLAIN))
    with pytest.raises(
        ConversionError, match=r"0 is a .*BatchNorm2d: in training mode .*call model.eval\(\)"
    ):
        evt.convert(whole.train())
    net = evt.convert(whole.eval())
    whole.train()
    with pytest.raises(ConversionError, match="in training mode it normalises by the batch"):
        net.stream("rows", r=4)


def add_in_place(module: nn.Module, inputs: Any, output: Tensor) -> None:
    output.add_(1)


def entered(model: Any, net: Any, frame: Tensor) -> None:
    with net.stream("frame", evt.TopR(4)):
        model.forward_features(frame)


def called(model: Any, net: Any, frame: Tensor) -> None:
    net(frame, net.states(evt.VARIANTS["frame"]), evt.TopR(4))


@pytest.mark.parametrize("run", [entered, called])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_what_is_written_between_blocks_is_not_dropped(run: Any, context: Any) -> None:
    """With one selection for all blocks, which would go on with what was not written to."""
    model = built(PLAIN)
    model.blocks[0].register_forward_hook(add_in_place)
    net = evt.convert(model)
    with context(), pytest.raises(ConversionError, match="does something between its blocks"):
        run(model, net, PLAIN.pictures(1, GRID))


def test_weights_may_be_others() -> None:
    model, net = converted()
    model.blocks[0].mlp.fc1.weight = nn.Parameter(torch.randn(128, 32))
    frame = PLAIN.pictures(1, GRID)
    with torch.no_grad():
        torch.testing.assert_close(net.stream("rows", r=4)(frame), model.forward_features(frame))


def test_who_writes_to_an_output_writes_to_nothing_that_is_held() -> None:
    _, net = converted()
    frame = PLAIN.pictures(1, GRID)
    stream = net.stream("skip", evt.Every(3))
    first = stream(frame)
    kept = first.clone()
    first.zero_()
    assert torch.equal(stream(frame), kept)


def test_with_its_grid_a_network_moves_its_tokens() -> None:
    """As patches of one column are those of the next one later: the features of the last frame move along."""
    _, net = converted()
    frame = PLAIN.pictures(1, (4, 4))
    for variant, policy in (("frame_moved", evt.TopR(0)), ("skip_moved", evt.Every(9))):
        stream = net.stream(variant, policy, grid=GRID)
        first = stream(frame)
        assert torch.equal(stream(frame), first)
        moved = stream(frame.roll(16, -1))
        assert not torch.equal(moved, first)
        with pytest.raises(ConfigError, match="cannot be entered"), stream:
            pass
    with pytest.raises(ConfigError, match=r"form no grid that is known; say grid=\(rows, columns\)"):
        net.stream("skip_moved", evt.Every(9))


@pytest.mark.parametrize("grid", [(4,), "44", (4.0, 4.0), (0, 16), 16])
def test_what_is_no_grid_is_told(grid: Any) -> None:
    _, net = converted()
    with pytest.raises(ConfigError, match=r"^grid is .*; it must be \(rows, columns\), two whole numbers"):
        net.stream("skip_moved", evt.Every(9), grid=grid)


@pytest.mark.parametrize(("variant", "policy"), [("frame_moved", evt.TopR(0)), ("skip_moved", evt.Every(9))])
def test_a_grid_is_held_to_the_tokens(variant: str, policy: Any) -> None:
    """Without the class token; else tokens would be moved as if they stood elsewhere."""
    _, net = converted()
    frame = PLAIN.pictures(1, GRID)
    for grid in ((3, 4), (1, 17), (8, 8)):
        with pytest.raises(
            ValueError, match=r"^grid is \(\d, \d+\), but 16 tokens of a frame stand for a place"
        ):
            net.stream(variant, policy, grid=grid)(frame)
    if variant == "frame_moved":
        with pytest.raises(ValueError, match=r"^grid is \(3, 4\), but 16 tokens"):
            net.stream("frame", Regions(), grid=(3, 4))(frame)
    maps = evt.convert(built(VITDET)).stream(variant, policy, grid=GRID)
    with pytest.raises(
        ValueError, match=r"what the network gives is of shape \(1, 32, 4, 4\); it must be tokens"
    ):
        maps(VITDET.pictures(1, GRID))


def test_a_policy_that_is_set_later_is_looked_at() -> None:
    _, net = converted()
    stream = net.stream("rows", r=4)
    for policy, sentence in (
        (
            evt.Every(2),
            r"needs a policy that selects tokens; Every\(2, phase=0\), which selects frames, was given",
        ),
        (None, "needs a policy that selects tokens; none was given"),
        (evt.TopR, "it must be a policy, such as TopR"),
        (Thresholds([1.0]), "policy.h has 1 thresholds, but this variant has 6 gates here"),
    ):
        with pytest.raises(ValueError, match=sentence):
            stream.policy = policy
        assert stream.policy.r == 4
    stream.policy = evt.TopR(5)


class Several(nn.Module):
    """A model that gives more than one tensor, in lists, tuples and dictionaries."""

    def __init__(self, backbone: Any, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.backbone, self.form = backbone, form

    def forward(self, frame: Tensor) -> Any:
        return self.form(self.backbone(frame))


@pytest.mark.parametrize("form", [lambda x: (x, [x]), lambda x: [x], lambda x: {"x": x}])
def test_who_writes_to_what_is_no_tensor_writes_to_nothing_that_is_held(form: Any) -> None:
    net = evt.convert(Several(built(PLAIN), form))
    frame, stream = PLAIN.pictures(1, GRID), net.stream("skip", evt.Every(3))
    for tensor in tree_leaves(stream(frame)):
        tensor.zero_()
    assert all(tensor.any() for tensor in tree_leaves(stream(frame)))
    with pytest.raises(
        ValueError, match=r"this stream holds a .*, and one that holds a tensor alone can be saved"
    ):
        stream.state_dict()


def test_a_frame_of_nothing_is_told() -> None:
    model = built(DINOV2)
    nothing, stream = torch.zeros(0, 3, 56, 56), evt.convert(model).stream("rows", r=4)
    with pytest.raises(ValueError, match=r"the frame is of shape \(0, 3, 56, 56\), and empty"):
        stream(nothing)
    with pytest.raises(ValueError, match=r"the tokens of the frame are of shape \(0, 17, 32\)"), stream:
        model(pixel_values=nothing)


def test_what_is_said_of_weights_that_were_rounded_is_so() -> None:
    """Those that are of another type are others, so that a saved stream is of no use to them."""
    model, net = converted()
    frame, stream = PLAIN.pictures(1, GRID), net.stream("rows", r=4)
    stream(frame)
    saved = stream.state_dict()
    model.double()
    with pytest.raises(ValueError, match=r"were torch.float32 on cpu when .*; call reset\(\)$"):
        stream(frame)
    with pytest.raises(ValueError, match="its weights are not this network's"):
        stream.load_state_dict(saved)
    stream.reset()
    stream(frame.double())


@pytest.mark.parametrize("save", [lambda x: torch.save(x, io.BytesIO()), pickle.dumps])
def test_what_cannot_be_pickled_says_what_to_do(save: Callable[[Any], Any]) -> None:
    model, net = converted()
    sentence = r"by evt cannot be pickled: save model.state_dict\(\), and convert"
    with pytest.raises(ConversionError, match=sentence):
        save(net)
    with net.stream("rows", r=4):
        model.forward_features(PLAIN.pictures(1, GRID))
        with pytest.raises(ConversionError, match=sentence):
            save(model)
    save(model)


@pytest.mark.parametrize("given", [None, "vit_base_patch16_224", {"weight": torch.zeros(1)}])
def test_what_is_no_model_is_told(given: Any) -> None:
    with pytest.raises(ConversionError, match=r"^convert takes a model, a module of torch; a "):
        evt.convert(given)


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (np.zeros((1, 3, 64, 64), np.float32), "a frame must be a tensor of torch; a ndarray was given"),
        (None, "a NoneType was given"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "the frame is of torch.uint8; it must be of floating-point"),
    ],
)  # fmt: skip
def test_what_is_no_frame_is_told(frame: Any, sentence: str) -> None:
    _, net = converted()
    with pytest.raises(ValueError, match=re.escape(sentence)):
        net.stream("rows", r=4)(frame)


@pytest.mark.parametrize("policy", [5, evt.TopR])
def test_what_is_no_policy_is_told(policy: Any) -> None:
    _, net = converted()
    with pytest.raises(ConfigError, match=r"^policy is .*; it must be a policy, such as TopR\(r=64\)"):
        net.stream("rows", policy)
    with pytest.raises(ConfigError, match=r"none was given; take TopR\(r=64\) or Threshold\(h=1.0\)$"):
        net.stream("rows")


def test_what_is_no_batch_is_told() -> None:
    _, net = converted()
    streams = [net.stream("rows", r=4) for _ in range(2)]
    frames: Tensor = torch.cat([PLAIN.pictures(1, GRID)] * 2)
    with pytest.raises(ValueError, match="frames are one tensor; they must be a list"):
        evt.Batch(streams)(frames)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a batch is of streams; a int was given"):
        evt.Batch([*streams, 3])  # type: ignore[list-item]


def test_a_conversion_calls_no_hooks_and_knows_no_autocast() -> None:
    """In bfloat16 a block is further from its own in float32 than what is taken for rounding."""
    model, called = built(PLAIN), []
    model.blocks[0].register_forward_hook(lambda *args: called.append(args))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        evt.convert(model)
    assert not called


def test_attention_that_a_config_asks_for_is_refused() -> None:
    """Within streams, where it would come out empty."""
    model = built(DINOV2)
    model.config._attn_implementation = "eager"
    net, frame = evt.convert(model), DINOV2.pictures(1, GRID)
    model.config.output_attentions = True
    with torch.no_grad():
        assert model(pixel_values=frame).attentions[0].shape == (1, 2, 17, 17)
        with (
            pytest.raises(ConversionError, match=r"config.output_attentions is true"),
            net.stream("rows", r=4),
        ):
            model(pixel_values=frame)
        assert torch.equal(net.stream("base")(frame), model(pixel_values=frame).last_hidden_state)


def test_blocks_may_be_called_by_keyword() -> None:
    """As a subclass of the encoder may, or a head of one's own."""
    model = built(DINOV2)
    net, frame = evt.convert(model), DINOV2.pictures(1, GRID)
    with torch.no_grad():
        tokens = model.embeddings(frame)
        for stream in (net.stream("rows", r=17), net.stream("temporal", r=17)):
            with stream:
                out = tokens
                for layer in model.encoder.layer:
                    out = layer(hidden_states=out)
            torch.testing.assert_close(model.layernorm(out), net(frame))


def test_configs_that_ask_for_tuples_change_nothing() -> None:
    example = next(x for x in EXAMPLES if x.name == "ViTModel")
    model, frame = built(example), example.pictures(1, GRID)
    net = evt.convert(model)
    before = net(frame)
    model.config.return_dict = False
    assert torch.equal(net(frame), before)


def test_models_are_converted_within_a_stream_as_outside_of_it() -> None:
    """Whose frames the tokens of the check are not."""
    model, net = converted()
    frame = PLAIN.pictures(1, GRID)
    with net.stream("rows", r=4) as stream:
        model.forward_features(frame)
        again = evt.convert(model)
        assert stream.flushed
    assert torch.equal(again.stream("rows", r=4)(frame), net.stream("rows", r=4)(frame))
