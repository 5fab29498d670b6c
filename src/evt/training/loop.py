"""The one training loop: AdamW or Muon, warm-up, decay, mixed precision, several processes, and exact resume.

Everything random is drawn from the recipe's seed and the place in the run, so that a run that was killed and started
again goes on as if nothing had happened.
"""

from __future__ import annotations

import io
import json
import math
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from evt.errors import DataError, TrainingError
from evt.files import append, seal, unsealed, write
from evt.models.checkpoints import BROKEN, hash_of
from evt.training.muon import Muon
from evt.workers import LOOK_EVERY, Watch, is_first, on_failure

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)

Losses = dict[str, Tensor]

Precision = Literal["float32", "bfloat16", "float16"]
Optimizer = Literal["adamw", "muon"]


class TrainingData(Protocol[S_co]):
    """Samples to train on. All that is random about a sample comes from the generator it is given."""

    def __len__(self) -> int: ...

    def sample(self, i: int, generator: torch.Generator) -> S_co:
        """Sample i, augmented."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    epochs, batch_size: passes over the data, and samples a step over all processes.
    lr, weight_decay: of the optimizer; biases, norms and position parameters do not decay.
    optimizer: adamw; or muon, with Muon on the matrices of Transformer blocks and AdamW on the rest.
    warmup_steps: the learning rate rises linearly over so many steps.
    decay_epochs: the learning rate falls tenfold at the start of each of these epochs, counted from 1.
    cosine: after the warm-up the learning rate follows half a cosine down to 0 instead.
    clip_norm: gradients are scaled down to this norm; null leaves them as they are.
    precision: of the forward pass; weights and the optimizer are float32.
    workers: processes that read samples; 0 reads in the training process.
    save_every: steps between checkpoints.
    seed: of the order of the samples and all else that is random.

    Raises:
        ValueError: a setting out of its range, or not of its kind; the message names it.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    optimizer: Optimizer = "adamw"
    warmup_steps: int = 0
    decay_epochs: Sequence[int] = ()
    cosine: bool = False
    clip_norm: float | None = None
    precision: Precision = "float32"
    workers: int = 0
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("save_every", 1),
            ("workers", 0),
            ("warmup_steps", 0),
        ):
            value = getattr(self, name)
            if not _is_whole(value) or value < least:
                raise ValueError(f"train.{name} is {value!r}; it must be a whole number of at least {least}")
        if not _is_whole(self.seed):
            raise ValueError(f"train.seed is {self.seed!r}; it must be a whole number")
        if not all(_is_whole(epoch) and epoch >= 1 for epoch in self.decay_epochs):
            raise ValueError(
                f"train.decay_epochs is {list(self.decay_epochs)}; each must be a whole number of at least 1"
            )
        for name in ("lr", "weight_decay"):
            value = getattr(self, name)
            if not _is_finite(value) or value < 0:
                raise ValueError(f"train.{name} is {value!r}; it must be a finite number of at least 0")
        if self.clip_norm is not None and (not _is_finite(self.clip_norm) or self.clip_norm <= 0):
            raise ValueError(
                f"train.clip_norm is {self.clip_norm!r}; it must be a finite number above 0, or null"
            )
        for name, choices in (("precision", get_args(Precision)), ("optimizer", get_args(Optimizer))):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"train.{name} is {value!r}; it must be one of {', '.join(choices)}")
        if self.cosine and self.decay_epochs:
            raise ValueError("train.cosine and train.decay_epochs are both set; only one of them can be")

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, both counted from 0."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / (self.warmup_steps + 1)
        if self.cosine:
            rest = self.epochs * steps_per_epoch - self.warmup_steps
            return self.lr * 0.5 * (1 + math.cos(math.pi * (step - self.warmup_steps) / rest))
        return self.lr * 0.1 ** sum(step >= (epoch - 1) * steps_per_epoch for epoch in self.decay_epochs)


def train(
    model: nn.Module,
    data: TrainingData[S],
    losses: Callable[[nn.Module, list[S]], Losses],
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    origin: Mapping[str, Any],
) -> None:
    """Train a model in place, or go on where a run in this folder stopped; one that is finished is told to be.

    Leaves `log.jsonl` (a line a step: step, lr and each loss) and `last.pt` (weights, optimizer, log, and behind them
    their hash) in the folder.
    A run goes on only where all that it depends on is as it was: recipe, starting weights, number of samples, origin.
    Under torchrun every process trains on its share of each batch.

    Args:
        model: on the device, with the weights to start from, also when a run goes on.
        data: what to train on.
        losses: the losses of a batch of samples by name; their sum is descended.
        recipe: how.
        folder: of the run.
        device: of the model.
        origin: what else the run depends on, in words that a message can use, such as the data's settings by name; of
            what json can hold.

    Raises:
        TrainingError: the data are fewer than a batch, the batch is not a multiple of the processes, the folder holds
            another run or a broken one, or the loss is no longer finite.
        DataError: a sample cannot be read.
        ChildProcessError: a worker was killed or stopped.
        OSError: the folder cannot be written to; a run that is started again goes on from the last checkpoint.
    """
    rank, world = processes()
    if len(data) < recipe.batch_size:
        raise TrainingError(
            f"there are {len(data)} samples to train on, fewer than train.batch_size, {recipe.batch_size}"
        )
    if recipe.batch_size % world:
        raise TrainingError(
            f"train.batch_size is {recipe.batch_size}; it must be a multiple of the {world} processes"
        )
    optimizers = build_optimizers(model, recipe)
    scaler = torch.amp.GradScaler(
        device.type, enabled=recipe.precision == "float16" and device.type == "cuda"
    )
    identity = _identity(recipe, model, len(data), origin)
    folder.mkdir(parents=True, exist_ok=True)
    start, logged = _resume(folder, model, optimizers, scaler, identity, device)
    steps_per_epoch = len(data) // recipe.batch_size
    total = recipe.epochs * steps_per_epoch
    if start == total:
        if rank == 0:
            print(f"this run is finished: {folder} holds all of its {total} steps, and none is done again")
        model.eval()
        return

    objective: nn.Module = _Objective(model, losses)
    if world > 1:
        objective = DistributedDataParallel(objective, device_ids=[device] if device.type == "cuda" else None)
    loader = DataLoader(
        _Seeded(data, recipe.seed),
        batch_sampler=_Batches(len(data), recipe, start, rank, world),
        num_workers=recipe.workers,
        collate_fn=list,
        persistent_workers=False,
        timeout=LOOK_EVERY if recipe.workers else 0,
    )
    model.train()
    bar = tqdm(_watched(loader), total=total, initial=start, desc="training", unit="step", disable=rank > 0)
    with _told_of_workers(), on_failure(signal.SIGCONT):
        for step, batch in enumerate(bar, start):
            for sample in batch:
                if isinstance(sample, _Unread):
                    raise DataError(sample.message)
            lr = recipe.lr_at(step, steps_per_epoch)
            for optimizer in optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = lr
            torch.manual_seed(_seed(recipe.seed, step, rank))  # what the model itself samples
            dtype = getattr(torch, recipe.precision)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                parts: Losses = objective(batch)
            loss = torch.stack(list(parts.values())).sum()
            if not torch.isfinite(loss):
                values = ", ".join(f"{name} {part.item():g}" for name, part in parts.items())
                raise TrainingError(
                    f"the loss of step {step} is not finite ({values}); a lower train.lr may help"
                )
            model.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            if recipe.clip_norm is not None:
                for optimizer in optimizers.values():
                    scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            for optimizer in optimizers.values():
                scaler.step(optimizer)
            scaler.update()
            if rank == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")
                line = {"step": step, "lr": lr}
                logged.append(json.dumps({**line, **{name: part.item() for name, part in parts.items()}}))
                append(folder / "log.jsonl", logged[-1])
                if (step + 1) % recipe.save_every == 0 or step + 1 == total:
                    _save(folder, model, optimizers, scaler, identity, logged)
    model.eval()


def processes() -> tuple[int, int]:
    """This process's rank and how many there are; joins those that torchrun started."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return (dist.get_rank(), world) if world > 1 else (0, 1)


def _watched(batches: Iterable[Any]) -> Iterator[Any]:
    """A loader's batches; its workers are looked at while one is waited for.

    Raises:
        ChildProcessError: a worker is stopped.
    """
    watch, iterator, end = Watch(), iter(batches), object()
    while True:
        try:
            batch = next(iterator, end)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
            watch.look()
            continue
        if batch is end:
            return
        yield batch


@contextmanager
def _told_of_workers() -> Iterator[None]:
    """torch raises RuntimeErrors of several lines, anywhere, where a worker was killed."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            "a process that reads samples was ended from outside, as the system does where memory is short; start "
            "the run again, and it goes on from its last checkpoint (fewer train.workers need less memory)"
        ) from error


class _Objective(nn.Module):
    """The losses as the forward pass of a module, which is what several processes can share."""

    def __init__(self, model: nn.Module, losses: Callable[[nn.Module, list[Any]], Losses]) -> None:
        super().__init__()
        self.model = model
        self.losses = losses

    def forward(self, batch: list[Any]) -> Losses:
        return self.losses(self.model, batch)


@dataclass(frozen=True)
class _Unread:
    """Stands for a sample that cannot be read: an exception would leave a worker with its traceback as message."""

    message: str


class _Seeded(Dataset[S | _Unread], Generic[S]):
    """Samples by (epoch, index), each augmented by a seed of its own."""

    def __init__(self, data: TrainingData[S], seed: int) -> None:
        self.data = data
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> S | _Unread:
        epoch, i = key
        try:
            return self.data.sample(i, torch.Generator().manual_seed(_seed(self.seed, epoch, i)))
        except DataError as error:
            return _Unread(str(error))


class _Batches:
    """The (epoch, index) keys of each step from `start` on, for one of the processes."""

    def __init__(self, n_samples: int, recipe: Recipe, start: int, rank: int, world: int) -> None:
        self.n_samples, self.recipe, self.start = n_samples, recipe, start
        self.share = slice(rank, None, world)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        size = self.recipe.batch_size
        per_epoch = self.n_samples // size
        for epoch in range(self.start // per_epoch, self.recipe.epochs):
            generator = torch.Generator().manual_seed(_seed(self.recipe.seed, epoch))
            order = torch.randperm(self.n_samples, generator=generator).tolist()
            first = self.start % per_epoch if epoch == self.start // per_epoch else 0
            for step in range(first, per_epoch):
                yield [(epoch, i) for i in order[step * size : (step + 1) * size][self.share]]

    def __len__(self) -> int:
        return self.recipe.epochs * (self.n_samples // self.recipe.batch_size) - self.start


def _seed(*place: int) -> int:
    """A seed for a place in a run: near places give unrelated ones."""
    value = 0
    for number in place:
        value = (value * 6364136223846793005 + number * 1442695040888963407 + 1) % 2**63
    return value


def build_optimizers(model: nn.Module, recipe: Recipe) -> dict[str, torch.optim.Optimizer]:
    """AdamW, and Muon where the recipe has it and there are matrices for it, under their names in `last.pt`.

    Matrices decay, and biases, norms and positions do not.
    """
    matrices, in_blocks, others = [], [], []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        if p.ndim < 2 or "pos" in name.rpartition(".")[2]:
            others.append(p)
        elif recipe.optimizer == "muon" and p.ndim == 2 and ".blocks." in f".{name}":
            in_blocks.append(p)
        else:
            matrices.append(p)
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizers: dict[str, torch.optim.Optimizer] = {"optimizer": torch.optim.AdamW(groups, lr=recipe.lr)}
    if in_blocks:
        optimizers["muon"] = Muon(in_blocks, recipe.lr, recipe.weight_decay)
    return optimizers


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _identity(recipe: Recipe, model: nn.Module, n_samples: int, origin: Mapping[str, Any]) -> dict[str, Any]:
    """What must not change between a run and its resumption, by the names that a message gives it."""
    settings = {
        f"train.{name}": value
        for name, value in asdict(recipe).items()
        if name not in {"workers", "save_every"}
    }
    rest = {"number of samples": n_samples, "starting weights": hash_of(model.state_dict())}
    identity: dict[str, Any] = json.loads(json.dumps({**settings, **origin, **rest}))
    return identity


def _resume(
    folder: Path,
    model: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    scaler: torch.amp.GradScaler,
    identity: dict[str, Any],
    device: torch.device,
) -> tuple[int, list[str]]:
    """Take up the run in the folder; the number of steps that it had done, and their lines of the log.

    Raises:
        TrainingError: see `train`.
    """
    path, log = folder / "last.pt", folder / "log.jsonl"
    if not path.exists():
        if is_first():
            log.unlink(missing_ok=True)
        return 0, []
    broken = f"{path}: is broken, or of another version of this program; delete {folder} to start anew"
    try:
        content = unsealed(path.read_bytes())
        if content is None:
            raise ValueError("the hash is of something else")
        last = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        found = last["identity"]
    except (OSError, *BROKEN) as error:
        raise TrainingError(broken) from error
    absent = object()  # is equal to nothing that is there
    differ = [name for name in {**identity, **found} if identity.get(name, absent) != found.get(name, absent)]
    if differ:
        raise TrainingError(
            f"{folder} holds another run, which differs in {', '.join(differ)}; "
            "give another folder, or the settings that it was begun with"
        )
    if not optimizers.keys() <= last.keys():
        raise TrainingError(broken)
    model.load_state_dict(last["model"])
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(last[name])
    scaler.load_state_dict(last["scaler"])
    logged: list[str] = last["log"]
    if is_first():
        # What was logged after the last checkpoint will be done, and logged, again.
        write(log, "".join(f"{line}\n" for line in logged))
    return len(logged), logged


def _save(
    folder: Path,
    model: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    scaler: torch.amp.GradScaler,
    identity: dict[str, Any],
    logged: list[str],
) -> None:
    """Write all that a run goes on from; the log, too, so that no step is lost from it, or twice in it."""
    state = {
        "model": model.state_dict(),
        **{name: optimizer.state_dict() for name, optimizer in optimizers.items()},
        "scaler": scaler.state_dict(),
        "identity": identity,
        "log": logged,
    }
    content = io.BytesIO()  # torch ends the process where it cannot write to a file
    torch.save(state, content)
    view = content.getbuffer()  # a copy would be as large again
    write(folder / "last.pt", view, seal(view))
