"""Whole models around a backbone, which go on working within a stream that was entered, and outside of it."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import evt
from evt.errors import ConfigError, ConversionError
from evt.models.foreign.examples import EXAMPLES, SMALL_GRIDS, Example, relative_error
from tests.models.foreign.test_convert import DINOV2, PLAIN, TOLERANCE, built

CLASSIFIER, DEPTH = (
    next(x for x in EXAMPLES if x.name == name)
    for name in ("Dinov2ForImageClassification", "DepthAnythingForDepthEstimation")
)


class Segmentation(nn.Module):
    """A user's own: a head on what two blocks of timm's model give."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(64, 3, 1)

    def forward(self, frame: Tensor) -> Tensor:
        """Frames to maps."""
        return self.head(
            torch.cat(self.backbone.forward_intermediates(frame, intermediates_only=True), dim=1)
        )


class OnTokens(nn.Module):
    """A user's own: a head on a network that was converted before."""

    def __init__(self, network: evt.Converted) -> None:
        super().__init__()
        self.network, self.head = network, nn.Linear(32, 3)

    def forward(self, frame: Tensor) -> Tensor:
        """Frames to a number of classes for each token."""
        return self.head(self.network(frame))


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def video_of(example: Example, n: int = 3) -> list[Tensor]:
    """Frames of which each differs in some places from the one before."""
    video = [example.pictures(1, SMALL_GRIDS[0])]
    for _ in range(n - 1):
        mask = torch.rand(1, 1, *video[0].shape[-2:]) < 0.2
        video.append(video[-1] + mask * torch.randn_like(video[0]))
    return video


def converted(model: nn.Module) -> Any:
    """Its network, which gives what the model does."""
    return evt.convert(model)


def elsewhere(function: Any, *args: Any) -> Any:
    """What a function gives in another thread, which knows of no stream."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.no_grad()(function), *args).result()


@pytest.mark.parametrize(
    ("example", "variant"),
    [
        *((CLASSIFIER, name) for name in ("temporal", "rows", "frame", "stgt", "tokenwise")),
        (DEPTH, "rows"),
        (DEPTH, "frame"),
    ],
    ids=str,
)
def test_the_model_itself_runs_in_a_stream(example: Example, variant: str) -> None:
    """As a stream that is called; and where all tokens pass, as without one."""
    model, video = built(example), video_of(example)
    net, kinds = converted(model), [type(module) for module in model.modules()]
    few, everything = evt.TopR(5), evt.TopR(17)
    with net.stream(variant, few):
        entered = [example.tensor(model(pixel_values=frame)) for frame in video]
    called = net.stream(variant, few)
    for frame, out in zip(video, entered, strict=True):
        assert torch.equal(example.tensor(called(frame)), out)
    assert relative_error(entered[-1], example.features(model, video[-1])) > 1e-3
    with net.stream(variant, everything):
        for frame in video:
            inside = example.features(model, frame)
            assert relative_error(inside, elsewhere(example.features, model, frame)) < TOLERANCE
    assert [type(module) for module in model.modules()] == kinds


def test_threads_do_not_see_each_others_streams() -> None:
    model = built(CLASSIFIER)
    net, videos = converted(model), [video_of(CLASSIFIER, 4) for _ in range(3)]

    def run(video: list[Tensor], r: int | None) -> list[Tensor]:
        if r is None:
            return [model(frame).logits for frame in video]
        with net.stream("rows", r=r):
            return [model(frame).logits for frame in video]

    work = list(zip(videos, (3, 7, None), strict=True))
    alone = [run(*of_one) for of_one in work]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(torch.no_grad()(lambda of_one: run(*of_one)), work * 4))
    for number, outputs in enumerate(together):
        assert all(map(torch.equal, outputs, alone[number % 3]))


def test_what_is_between_blocks_is_of_this_frame_where_it_was_selected() -> None:
    """With one selection for all blocks, hidden states change where tokens passed, and there alone."""
    model, video = built(DINOV2), video_of(DINOV2, 2)
    net = converted(model)
    with net.stream("frame", evt.TopR(5)) as stream:
        first, second = (model(pixel_values=frame, output_hidden_states=True) for frame in video)
        passed = (stream.states.gate.u[0] - first.hidden_states[0][0]).any(-1)
        passed[0] = True  # the class token, which is the same in every frame
    for depth in (1, 2):
        changed = (second.hidden_states[depth] - first.hidden_states[depth])[0].any(-1)
        assert torch.equal(changed, passed)
    plain = net.stream("frame", evt.TopR(5))
    assert torch.equal(plain(video[0]), first.last_hidden_state)
    assert torch.equal(plain(video[1]), second.last_hidden_state)
    assert len(model(pixel_values=video[0], output_hidden_states=True).hidden_states) == 3
    assert len(net.model(pixel_values=video[0], output_hidden_states=True).hidden_states) == 3
    with pytest.raises(ConfigError, match="call reset"), plain:
        pass
    plain.reset()
    with plain:
        assert torch.equal(model(pixel_values=video[0]).last_hidden_state, first.last_hidden_state)


def test_heads_of_ones_own() -> None:
    """Around timm's model, and around one that was converted; both at once, in a stream each."""
    torch.manual_seed(0)
    maps, video = Segmentation(built(PLAIN)).eval(), video_of(PLAIN)
    net, inner = converted(maps), converted(built(PLAIN))
    tokens = OnTokens(inner)
    with net.stream("rows", r=17), inner.stream("temporal", r=17):
        for frame in video:
            assert relative_error(maps(frame), elsewhere(maps, frame)) < TOLERANCE
            assert relative_error(tokens(frame), elsewhere(tokens, frame)) < TOLERANCE
    stream = net.stream("rows", r=5)
    few = [stream(frame) for frame in video]
    assert relative_error(few[0], maps(video[0])) < TOLERANCE
    assert relative_error(few[2], maps(video[2])) > 1e-3


def test_classifier_of_timm() -> None:
    """A stream that is called gives features; the model, in one that is entered, its logits."""
    model, video = built(PLAIN), video_of(PLAIN)
    model.reset_classifier(5)
    net = converted(model)
    called = net.stream("rows", r=4)
    with net.stream("rows", r=4):
        logits = [model(frame) for frame in video]
    assert [model.forward_head(called(frame)).tolist() for frame in video] == [x.tolist() for x in logits]


def test_gradients_of_a_head() -> None:
    """Of features that come from a stream, which keeps no graph."""
    maps, video = Segmentation(built(PLAIN)), video_of(PLAIN)
    with torch.enable_grad(), converted(maps.eval()).stream("rows", r=4) as stream:
        for frame in video:
            maps(frame).sum().backward()
    assert maps.head.weight.grad is not None
    assert all(parameter.grad is None for parameter in maps.backbone.blocks.parameters())
    assert stream.nbytes > 0


@pytest.mark.parametrize("variant", ["rows", "frame"])
@pytest.mark.parametrize("example", [CLASSIFIER, DINOV2], ids=str)
def test_streams_that_were_entered_go_on(example: Example, variant: str) -> None:
    """In another `with`, and when they were saved and loaded; of a backbone, too, with what is between its blocks."""
    model, video = built(example), video_of(example)
    net = converted(model)
    with net.stream(variant, evt.TopR(4)) as whole:
        expected = [model(pixel_values=frame)[0] for frame in video][-1]
    assert whole.state_dict()
    with net.stream(variant, evt.TopR(4)) as begun:
        [model(pixel_values=frame) for frame in video[:-1]]
    loaded = net.stream(variant, evt.TopR(4))
    loaded.load_state_dict(begun.state_dict())
    assert loaded.nbytes == begun.nbytes
    for stream in (begun, loaded):
        with stream:
            assert torch.equal(model(pixel_values=video[-1])[0], expected)


def test_dense_it_is_the_models_own_code_and_counted() -> None:
    """To the bit, so as fast; the operations are those of the blocks that are in its place."""
    model, video = built(CLASSIFIER), video_of(CLASSIFIER, 1)
    net = converted(model)
    base = net.stream("base")
    for run in (net, base, base):
        with evt.count_ops() as ops:
            assert torch.equal(run(video[0]).logits, model(video[0]).logits)
        with evt.count_ops() as of_blocks:
            net.blocks(torch.randn(1, 17, 32))
        assert ops == of_blocks != {}
    assert base.nbytes == 0


@pytest.mark.parametrize("variant", ["rows", "frame"])
def test_bytes_are_known_before(variant: str) -> None:
    """Those between the blocks, too, where one selection is made a frame."""
    net, (frame,) = converted(built(CLASSIFIER)), video_of(CLASSIFIER, 1)
    stream = net.stream(variant, evt.TopR(4))
    stream(frame)
    assert net.state_bytes(variant, frame.shape) == stream.nbytes > 0


def test_bad_frames_leave_a_stream_as_it_was() -> None:
    model, video = built(CLASSIFIER), video_of(CLASSIFIER)
    net = converted(model)
    other = net.stream("rows", r=4)
    expected = [other(frame).logits for frame in video][-1]
    with net.stream("rows", r=4) as stream:
        [model(frame) for frame in video[:2]]
        with pytest.raises(ValueError, match="NaN or infinite; all must be finite"):
            model(video[2] * torch.nan)
        with pytest.raises(
            ValueError, match=r"shape \(1, 17, 32\) and was given some of shape \(2, 17, 32\)"
        ):
            model(video[2].expand(2, -1, -1, -1))
        assert torch.equal(model(video[2]).logits, expected)
        assert stream.nbytes > 0


def test_a_head_may_give_what_is_not_finite() -> None:
    """As logits that are masked."""
    model, video = built(CLASSIFIER), video_of(CLASSIFIER, 2)
    model.classifier.bias[1] = -torch.inf
    stream = converted(model).stream("rows", r=4)
    assert all(stream(frame).logits.isinf().any() for frame in video)


def test_frame_skipping_of_a_whole_model() -> None:
    model, video = built(CLASSIFIER), video_of(CLASSIFIER, 4)
    stream = converted(model).stream("skip", evt.Every(2))
    due = [0, 0, 2, 2]
    for frame, last in zip(video, due, strict=True):
        assert torch.equal(stream(frame).logits, model(video[last]).logits)
    with pytest.raises(ConfigError, match="cannot be entered; call it"), stream:
        pass


def test_a_budget_that_follows_frames_is_of_streams_that_are_called() -> None:
    """In one that is entered r would stay where it began, and nobody would say so."""
    model, video = built(CLASSIFIER), video_of(CLASSIFIER, 4)
    stream = converted(model).stream("rows", evt.Operations(1e-6, fps=25, low=2))
    with pytest.raises(ConfigError, match=r"follows what a frame takes, .*; call it, as stream"), stream:
        pass
    for frame in video:
        stream(frame)
    assert stream.policy.r == 2


def test_streams_to_which_no_frame_came_say_so() -> None:
    """As where a copy of the model is called, or what torch.compile made of it."""
    model, (frame,) = built(CLASSIFIER), video_of(CLASSIFIER, 1)
    other = copy.deepcopy(model)
    with pytest.warns(UserWarning, match="no frame came to a stream"), converted(model).stream("rows", r=4):
        other(frame)


def test_models_that_run_their_backbone_twice() -> None:
    """Take two frames of a stream that was entered, and cannot be called by one."""

    class Twice(nn.Module):
        def __init__(self, backbone: nn.Module) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, frame: Tensor) -> Tensor:
            return self.backbone(frame) + self.backbone(frame.flip(-1))

    model, video = Twice(built(PLAIN)), video_of(PLAIN, 2)
    net = converted(model)
    with net.stream("rows", r=17):
        for frame in video:
            assert relative_error(model(frame), elsewhere(model, frame)) < TOLERANCE
    with pytest.raises(ConversionError, match="ran its blocks 2 times"):
        net.stream("rows", r=17)(video[0])


def test_copies_of_the_model_stay_dense() -> None:
    model, video = built(CLASSIFIER), video_of(CLASSIFIER)
    other = copy.deepcopy(model)
    with converted(model).stream("rows", r=2):
        for frame in video:
            model(frame)
            assert torch.equal(other(frame).logits, elsewhere(other, frame).logits)
            assert torch.equal(copy.deepcopy(model)(frame).logits, other(frame).logits)
