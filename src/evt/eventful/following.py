"""Budgets that follow something: a schedule, a time for each frame, or operations a second."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

from torch import Tensor

from evt.eventful.policy import Norm, Past, Selection, TopR, check_room, checked_norm, named, tokens_of
from evt.eventful.setting import Checked, number, number_or_share

log = logging.getLogger(__name__)

RECENT = 8
"""Frames by which it is judged what a token costs."""

NEAR = 0.03
"""Share of the target within which r stays as it is."""

PATIENCE = 5
"""Frames in a row with the smallest r above the target, after which it is said that this cannot be met."""

KEPT = 100_000
"""Frames that a log goes back."""


class Scheduled(TopR):
    """Top-r with an r that changes at given frames.

    Args:
        schedule: a mapping, r by the number of the frame from which it holds, counted from the flush, which is frame
            0 and passes all. Each is what `TopR` takes.
        ramp: between two of these frames r goes from one to the other in equal steps; else it stays until the second.
        norm: see `TopR`.

    Raises:
        ValueError: there is no r, none from frame 0 or 1 on, a frame's number is no whole number of at least 0, or an
            r cannot be, see `TopR`; with a ramp, some are numbers and others shares; r is set.
    """

    counts_tokens = False
    by_norm = TopR.by_norm

    # Any, since what it must be is said better here than by its type.
    def __init__(self, schedule: Any, ramp: bool = False, norm: Norm = "l2") -> None:
        if not isinstance(schedule, Mapping) or not schedule or not all(map(_is_frame, schedule)):
            raise ValueError(
                f"policy.schedule is {schedule!r}; it must say r by frame, as {{0: 256, 50: 64}}, with whole numbers "
                "of at least 0 as frames"
            )
        frames = sorted(schedule)
        self._at = {at: number_or_share(f"schedule[{at}]", schedule[at]) for at in frames}
        self._frames = list(self._at)
        if self._frames[0] > 1:
            raise ValueError(
                f"policy.schedule begins at frame {self._frames[0]}; it must begin at 0, which is the flush, or 1"
            )
        if ramp and len({isinstance(own, int) for own in self._at.values()}) > 1:
            raise ValueError(
                "policy.schedule has numbers and shares of tokens; with a ramp they must be all of one kind"
            )
        self.ramp = ramp
        self._r, self.norm = self.at(1), checked_norm(norm)  # r cannot be set here

    @property
    def r(self) -> float:
        """The budget in the last frame; before any, that of frame 1."""
        return self._r

    @r.setter
    def r(self, r: float) -> None:
        raise ValueError(
            "policy.r follows policy.schedule, and cannot be set; take another Scheduled, or TopR"
        )

    def __repr__(self) -> str:
        ramp = ", ramp=True" if self.ramp else ""
        return f"Scheduled({self._at}{ramp}{named(self.norm)})"

    def at(self, frame: int) -> float:
        """r in a frame, by its number from the flush on."""
        before = max((at for at in self._frames if at <= frame), default=self._frames[0])
        after = next((at for at in self._frames if at > frame), None)
        r = self._at[before]
        if not self.ramp or after is None or frame < before:
            return r
        between = r + (self._at[after] - r) * (frame - before) / (after - before)
        return round(between) if isinstance(r, int) else between

    def check(self, n_tokens: int) -> None:
        """Refuse frames of fewer tokens than the largest r; see `TopR`."""
        for at, r in self._at.items():
            check_room(f"schedule[{at}]", r, n_tokens)

    def __call__(self, error: Tensor, past: Past | None = None) -> Selection:
        """See `TopR`."""
        assert past is not None
        self._r = self.at(past.number)
        return super().__call__(error, past)


class Decision(NamedTuple):
    """Of a later frame: its number from the first one that was measured on, its r in tokens, and what it cost.

    The frames of all streams that share a policy are counted together.
    """

    frame: int
    r: int
    cost: float


class Following(TopR):
    """Top-r with an r that follows a target for what each frame costs; see `Latency` and `Operations`.

    A frame is taken to cost a + b r. By the last few frames b is estimated, never as less than these allow, since a b
    too small would let r swing; a is the median of the last three, so that one slow frame alone changes nothing.

    Attributes:
        log: what was decided, of the last `KEPT` frames.
        clock: seconds, by which frames are timed; another one for simulations.
        counts_ops: `took` needs operations.
    """

    counts_tokens = False
    by_norm = TopR.by_norm
    counts_ops = False
    unit: str
    setting: str
    low = Checked(number_or_share)
    high = Checked(number_or_share)

    def __init__(self, target: float, low: float = 0, high: float = 1.0, norm: Norm = "l2") -> None:
        self.norm = checked_norm(norm)
        self.target, self.low, self.high = target, low, high
        self.clock: Callable[[], float] = time.perf_counter
        self.log: deque[Decision] = deque(maxlen=KEPT)
        self._recent: deque[Decision] = deque(maxlen=RECENT)
        self._wanted: float | None = None
        self._n_tokens: int | None = None  # of the last frame
        self._now: int | None = None  # r in the present frame
        self._above, self._said = 0, False

    def __repr__(self) -> str:
        limits = f", low={self.low}, high={self.high}"
        return f"{type(self).__name__}({self.setting}={self.target:g}{limits}{named(self.norm)})"

    @property
    def target(self) -> float:
        """What a frame may cost; it may change before any frame, as may `low` and `high`, the limits of r."""
        return self._target

    @target.setter
    def target(self, target: float) -> None:
        self._target = number(self.setting, target, above=0)

    @property
    def r(self) -> float:
        """What is held now: tokens that pass in the next frame; before the first one, `high`."""
        return self.high if self._n_tokens is None else self.tokens(self._n_tokens)

    @r.setter
    def r(self, r: float) -> None:
        raise ValueError(
            f"policy.r follows policy.{self.setting}, and cannot be set; set target, low or high, or take TopR"
        )

    def held(self) -> TopR:
        """Top-r with what is held now, which follows nothing."""
        return TopR(self.r, self.norm)

    def forget(self) -> None:
        """Begin anew, at `high`, as if no frame had been measured; what was said is not said again."""
        self.log.clear()
        self._recent.clear()
        self._wanted = self._n_tokens = self._now = None
        self._above = 0

    def limits(self, n_tokens: int) -> tuple[int, int]:
        """The smallest and the largest r, of so many tokens.

        Raises:
            ValueError: the first is the larger one.
        """
        low, high = (tokens_of(limit, n_tokens) for limit in (self.low, self.high))
        if low > high:
            raise ValueError(
                f"policy.low is {self.low}, {low} tokens, and policy.high {self.high}, {high}; low must be less"
            )
        return low, high

    def tokens(self, n_tokens: int) -> int:
        """How many tokens of so many pass in the next frame."""
        low, high = self.limits(n_tokens)
        return high if self._wanted is None else min(max(round(self._wanted), low), high)

    def check(self, n_tokens: int) -> None:
        """See `TopR`."""
        for name, limit in (("low", self.low), ("high", self.high)):
            check_room(name, limit, n_tokens)
        self.limits(n_tokens)

    def __call__(self, error: Tensor, past: Past | None = None) -> Selection:
        """See `TopR`."""
        self._n_tokens = error.shape[1]
        self._now = self.tokens(self._n_tokens)
        return super().__call__(error, past)

    def cost(self, seconds: float, ops: float) -> float:
        """What of the two counts."""
        raise NotImplementedError

    def took(self, seconds: float, ops: float) -> None:
        """Hear what a frame took, a flush apart, and decide on the next one's r."""
        if self._now is None or self._n_tokens is None:
            return
        r, n_tokens, self._now = self._now, self._n_tokens, None
        frame = self.log[-1].frame + 1 if self.log else 1
        done = Decision(frame, r, self.cost(seconds, ops))
        self.log.append(done)
        self._recent.append(done)
        slope = self._slope()
        rest = median(x.cost - slope * x.r for x in list(self._recent)[-3:])
        if abs(rest + slope * r - self.target) > NEAR * self.target:
            low, high = self.limits(n_tokens)
            self._wanted = min(max((self.target - rest) / slope, low), high)
        self._tell(done, n_tokens)

    def _slope(self) -> float:
        """What a token costs, as far as the last frames tell; never more than all of the cost, by token."""
        n = len(self._recent)
        mean_r, mean_cost = (sum(x) / n for x in zip(*((x.r, x.cost) for x in self._recent), strict=True))
        most = mean_cost / max(mean_r, 1.0)
        # Where r hardly changed, what is told of it is noise, and the most that it can be is safe.
        little = n * (0.1 * max(mean_r, 1.0)) ** 2
        together = sum((x.r - mean_r) * (x.cost - mean_cost) for x in self._recent)
        alone = sum((x.r - mean_r) ** 2 for x in self._recent)
        return min(max((together + little * most) / (alone + little), 0.1 * most), most)

    def _tell(self, done: Decision, n_tokens: int) -> None:
        """Say once that even the smallest r costs too much."""
        low, _ = self.limits(n_tokens)
        above = done.r == low and done.cost > (1 + NEAR) * self.target
        self._above = self._above + 1 if above else 0
        if self._above == PATIENCE and not self._said:
            self._said = True
            log.warning(
                "no r meets policy.%s=%g: at r = %d, the smallest allowed, a frame takes %.3g %s; that r is held",
                self.setting,
                self.target,
                low,
                done.cost,
                self.unit,
            )


class Latency(Following):
    """Top-r with an r that keeps the time of a frame at a target.

    Args:
        target_ms: milliseconds of a later frame, from when it is given to the stream to its output.
        low, high: between which r stays, numbers of tokens or shares of them.
        norm: see `TopR`.

    Raises:
        ValueError: target_ms is no number above 0, or a limit is no r; r is set; at selection, low is above high.
    """

    unit, setting = "ms", "target_ms"

    def __init__(self, target_ms: float, low: float = 0, high: float = 1.0, norm: Norm = "l2") -> None:
        super().__init__(target_ms, low, high, norm)

    def cost(self, seconds: float, ops: float) -> float:
        """See `Following`."""
        return 1000 * seconds


class Operations(Following):
    """Top-r with an r that keeps operations a second at a target, at a given rate of frames.

    Args:
        per_second: 10^9 operations of later frames a second.
        fps: frames a second.
        low, high, norm: see `Latency`.

    Raises:
        ValueError: per_second or fps is no number above 0, or see `Latency`.
    """

    counts_ops = True
    unit, setting = "GFlops a second", "per_second"

    def __init__(
        self, per_second: float, fps: float, low: float = 0, high: float = 1.0, norm: Norm = "l2"
    ) -> None:
        self.fps = number("fps", fps, above=0)
        super().__init__(per_second, low, high, norm)

    def cost(self, seconds: float, ops: float) -> float:
        """See `Following`."""
        return ops / 1e9 * self.fps


def _is_frame(at: Any) -> bool:
    return isinstance(at, int) and not isinstance(at, bool) and at >= 0
