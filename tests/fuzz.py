"""Random damages to every kind of file that is read, and what becomes of them: `make fuzz`.

python -m tests.fuzz                       400 damages, the same every time
python -m tests.fuzz --seed 7 --n 1000     others
python -m tests.fuzz --only 17 44          these of them again, with all that they say

Each damage is done to a copy and read in a process of its own by this project's own code. It must be refused with one
of the four errors that a command tells in a sentence, or read; a traceback, a crash, a hang, and another result where
a checksum could tell are faults. The exit status is 1 if there are any.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evt import cli, settings
from evt.data import open_video
from evt.data.epic_kitchens import EpicKitchens
from evt.data.frames import FrameFolder
from evt.data.kinetics import Kinetics
from evt.data.something import SomethingSomething
from evt.data.vid import VID
from evt.errors import CheckpointError, ConfigError, DataError, TrainingError
from evt.evaluate.calibrated import Calibration
from evt.evaluate.ledger import Ledger
from evt.models import shipped
from evt.models.checkpoints import classes_in, hash_of, read_checkpoint, save_checkpoint
from evt.run import run
from tests.commands import SMALL_RUN
from tests.common import ROOT
from tests.data.test_something import write as write_something
from tests.data.vid_tree import coco_json, write_json, write_tree
from tests.training.runs import trained
from tests.videos import write_video
from tests.vivit import filled, small_vivit

SENTENCES = (CheckpointError, ConfigError, DataError, TrainingError)
SECONDS = 90.0
"""Of one case, on a busy machine; none takes more than a few."""
KINETICS = "label,youtube_id,time_start,time_end,split\n" + "".join(
    f"{label},clip{i},{i},{i + 10},val\n"
    for i, label in enumerate(["yoga", "archery", "yoga", "juggling balls"])
)
EPIC = "narration_id,video_id,start_timestamp,stop_timestamp,verb,verb_class\n" + "".join(
    f"P01_01_{i},P01_01,00:00:00.{i}0,00:00:00.{i + 2}0,verb,{i % 5}\n" for i in range(5)
)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    make: writes whole files of it into a folder.
    files: a pattern of those that are damaged.
    read: what the project makes of the folder: equal for equal results.
    sealed: whether a checksum tells every damage, so that the result is that of whole files, or an error.
    """

    make: Callable[[Path], object]
    files: str
    read: Callable[[Path], str]
    sealed: bool = False


def digest(*parts: object) -> str:
    """A hash of tensors and of what json can hold."""
    return hashlib.sha256(
        "".join(hash_of({"x": x}) if isinstance(x, Tensor) else repr(x) for x in parts).encode()
    ).hexdigest()


def make_pngs(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(generator.integers(0, 256, (24, 32, 3), np.uint8)).save(folder / f"{i}.png")


def frames_of(folder: Path) -> str:
    return digest(*(x for frame in FrameFolder(folder) for x in (frame.name, frame.image)))


def make_video(path: Path) -> None:
    """40 frames of moving noise, and beside them those of a plain decode."""
    noise = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as file:
        codec = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
        stream = cast(av.VideoStream, file.add_stream(codec, rate=25))
        stream.options = {"g": "12"}
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for i in range(40):
            picture = np.roll(noise, (i, 2 * i), (0, 1))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    with av.open(str(path)) as file:
        whole = [frame.to_ndarray(format="rgb24").transpose(2, 0, 1) for frame in file.decode(video=0)]
    np.save(path.with_name("whole.npy"), np.stack(whole))


def video_of(path: Path) -> str:
    """Each frame is what it is in any order, and never another frame of the whole file than by its place or time.

    Damaged pixels in which no decoder sees a fault are another result.
    """
    video, whole = open_video(path), torch.from_numpy(np.load(path.with_name("whole.npy")))
    found: dict[int, Tensor | DataError] = {}
    for i in (*range(len(video)), *range(len(video))[::-3]):
        try:
            frame: Tensor | DataError = video[i]
        except DataError as error:
            frame = error
        first = found.setdefault(i, frame)
        assert type(first) is type(frame), f"frame {i} is given in one order and refused in another"
        if isinstance(first, Tensor) and isinstance(frame, Tensor):
            assert torch.equal(first, frame), f"frame {i} is another one in another order"
            same = [j for j, other in enumerate(whole) if torch.equal(frame, other)]
            assert not same or {i, round(video.times[i] * 25)} & {*same}, f"frame {i} is {same}"
    if refused := [frame for frame in found.values() if isinstance(frame, DataError)]:
        raise refused[0]
    return digest(*found.values())


def targets_of(videos: VID) -> str:
    parts: list[Any] = []
    for video in videos:
        for frame in video:
            assert frame.target is not None
            parts += [frame.name, frame.target.boxes, frame.target.labels]
    return digest(*parts)


def make_ledger(folder: Path) -> None:
    ledger = Ledger(folder / "videos.jsonl")
    for i in range(6):
        ledger.put(f"video {i}", measured(i))


def measured(i: int) -> dict[str, Any]:
    return {"seconds": [i + 0.1, i + 0.2], "name": f"ä{i}"}


def resume_ledger(folder: Path) -> str:
    """As a run does: what is not there is measured anew."""
    ledger = Ledger(folder / "videos.jsonl")
    for i in range(6):
        if f"video {i}" not in ledger:
            ledger.put(f"video {i}", measured(i))
    return digest([Ledger(folder / "videos.jsonl")[f"video {i}"] for i in range(6)])


def resume_training(folder: Path) -> str:
    return digest(*trained(folder).parameters(), (folder / "log.jsonl").read_text())


def cache_of(folder: Path) -> str:
    cache = filled(folder, small_vivit())
    return digest(*(x for i in range(len(cache)) for x in cache[i]))


def shipped_of(folder: Path) -> str:
    shipped.FOLDER = folder
    return digest(*read_checkpoint(shipped.checkpoint_path("shipped:videomae_mini")).values())


def make_shipped(folder: Path) -> None:
    for file in ("SHA256SUMS", "videomae_mini.safetensors", "videomae_mini.md"):
        shutil.copy(shipped.FOLDER / file, folder)


def run_with_configs(folder: Path) -> str:
    """A run under these configs: exit status 2 and a sentence, or figures."""
    settings.CONFIG_DIR = folder / "configs"
    sys.argv = ["run", *SMALL_RUN, f"hydra.run.dir={folder}/run"]
    try:
        cli.run_command("run", run)
    except SystemExit as end:
        told = Path(folder, "stderr").read_text().strip().splitlines()[-1:]
        if end.code != 2 or not told or not told[0].startswith("error: "):
            raise
        raise ConfigError(told[0]) from None
    return "ran"


def classes_of(folder: Path) -> str:
    data = SomethingSomething(folder / "validation.json", folder / "labels.json", folder / "videos")
    return digest([(clip.name, clip.label) for clip in data], data.missing)


def make_clips(folder: Path) -> None:
    """What classes need is the names of the files alone."""
    write_something(folder)
    (folder / "videos/99.webm").write_bytes(b"0")


def make_kinetics(folder: Path) -> None:
    (folder / "val.csv").write_text(KINETICS)
    (folder / "clip0_000000_000010.mp4").write_bytes(b"0")


def kinetics_of(folder: Path) -> str:
    data = Kinetics(folder / "val.csv", folder)
    return digest([(clip.name, clip.label) for clip in data], data.missing)


def epic_of(folder: Path) -> str:
    data = EpicKitchens(folder)
    return digest(
        *(x for clip in data for x in (clip.name, clip.label, clip.frames[[0, len(clip.frames) - 1]]))
    )


def make_calibration(folder: Path) -> None:
    Calibration("vit", 36, {"gate": "reference"}, "", ["a"], 4, [4.1] * 6, [0.25] * 6).write(
        folder / "c.json"
    )


def make_epic(folder: Path) -> None:
    write_video(folder / "videos/P01_01.mp4", 60, 60)
    (folder / "EPIC_100_validation.csv").write_text(EPIC)


KINDS = {
    "png": Kind(make_pngs, "*.png", frames_of, sealed=True),
    "mp4": Kind(lambda x: make_video(x / "v.mp4"), "*.mp4", lambda x: video_of(x / "v.mp4")),
    "webm": Kind(lambda x: make_video(x / "v.webm"), "*.webm", lambda x: video_of(x / "v.webm")),
    "json of boxes": Kind(
        lambda x: write_json(write_tree(x) / "val.json", coco_json()),
        "*.json",
        lambda x: targets_of(VID(x, annotations=x / "val.json")),
    ),
    "json of clips": Kind(make_clips, "*.json", classes_of),
    "csv of kinetics": Kind(make_kinetics, "*.csv", kinetics_of),
    "csv of epic": Kind(make_epic, "*.csv", epic_of),
    "xml": Kind(write_tree, "**/*.xml", lambda x: targets_of(VID(x))),
    "safetensors": Kind(
        lambda x: save_checkpoint(
            {"a": torch.arange(60.0), "b": torch.ones(3, 4)}, x / "w.safetensors", ["cat", "dog"]
        ),
        "*.safetensors",
        lambda x: digest(
            *sorted(read_checkpoint(x / "w.safetensors").items()), classes_in(x / "w.safetensors")
        ),
        sealed=True,
    ),
    "last.pt": Kind(trained, "last.pt", resume_training, sealed=True),
    "log.jsonl": Kind(trained, "log.jsonl", resume_training, sealed=True),
    "ledger": Kind(make_ledger, "*.jsonl", resume_ledger, sealed=True),
    "cache": Kind(lambda x: filled(x, small_vivit()), "*.*", cache_of, sealed=True),
    "shipped": Kind(make_shipped, "*", shipped_of, sealed=True),
    "calibration": Kind(
        make_calibration, "*.json", lambda x: digest(*Calibration.read(x / "c.json")), sealed=True
    ),
    "configs": Kind(
        lambda x: shutil.copytree(ROOT / "configs", x / "configs"), "configs/**/*.yaml", run_with_configs
    ),
}
USED_CONFIGS = ("run", "folder", "vitdet", "top_r", "temporal", "sprites", "builtin")
"""Of the others a damage would not be seen."""


def damage(content: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Flipped bits, a cut, a deletion, or bytes from elsewhere in the file; and which."""
    what = chance.choice(["flip", "flip", "flips", "cut", "deletion", "copy"])
    data = bytearray(content)
    place = chance.randrange(len(data))
    length = chance.randint(1, max(1, min(len(data) // 4, 4096)))
    if what in ("flip", "flips"):
        for where in [place] if what == "flip" else chance.choices(range(len(data)), k=8):
            data[where] ^= 1 << chance.randrange(8)
    elif what == "cut":
        del data[place:]
    elif what == "deletion":
        del data[place : place + length]
    else:
        other = chance.randrange(len(data))
        data[place : place + length] = data[other : other + length]
    return bytes(data), f"{what} at {place} of {len(content)}"


def begin(number: int, seed: int, whole: Path, work: Path) -> tuple[int, str, Path]:
    """Start a case in a process of its own; its id, its description, and its folder."""
    name = list(KINDS)[number % len(KINDS)]
    chance = random.Random(f"{seed} {number}")
    folder = work / str(number)
    shutil.copytree(whole / name, folder)
    files = sorted(path for path in folder.glob(KINDS[name].files) if path.is_file())
    if name == "configs":
        files = [path for path in files if path.stem in USED_CONFIGS]
    file = chance.choice(files)
    content, how = damage(file.read_bytes(), chance)
    file.write_bytes(content)
    return launch(name, folder), f"{number}: {name}, {file.relative_to(folder)}, {how}", folder


def launch(name: str, folder: Path) -> int:
    """Read a folder in a process of its own, which leaves `outcome` and `stderr` there."""
    pid = os.fork()
    if pid:
        return pid
    try:
        with open(folder / "stderr", "wb") as errors, open(os.devnull, "wb") as nothing:
            os.dup2(errors.fileno(), 2)
            os.dup2(nothing.fileno(), 1)
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, resource.RLIM_INFINITY))
        try:
            outcome = ["read", KINDS[name].read(folder)]
        except SENTENCES as error:
            outcome = ["refused", str(error)]
        except BaseException:
            outcome = ["traceback", traceback.format_exc()]
        (folder / "outcome").write_text(json.dumps(outcome))
    finally:
        sys.stderr.flush()
        os._exit(0)


def finish(pid: int, folder: Path, started: float) -> tuple[str, str] | None:
    """What became of a case, and what it said; None while it goes on."""
    ended, _ = os.waitpid(pid, os.WNOHANG)
    if not ended:
        if time.monotonic() - started < SECONDS:
            return None
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return "hang", f"longer than {SECONDS:g} s"
    said = (folder / "stderr").read_text(errors="replace")
    if not (folder / "outcome").exists():
        return "crash", said
    outcome, text = json.loads((folder / "outcome").read_text())
    if outcome == "refused" and (not text.strip() or "\n" in text.strip()):
        return "not one sentence", text
    return ("traceback", said) if "Traceback" in said else (outcome, text)


def wait_for(pid: int, folder: Path) -> tuple[str, str]:
    """What became of a case, once it has ended or has taken too long."""
    started = time.monotonic()
    while (found := finish(pid, folder, started)) is None:
        time.sleep(0.005)
    return found


def cases(numbers: list[int], seed: int, whole: Path, work: Path) -> Iterator[tuple[int, str, str, str]]:
    """Number, description, outcome and text of each, some at a time."""
    waiting = list(numbers)
    running: dict[int, tuple[int, str, Path, float]] = {}
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            number = waiting.pop(0)
            running[number] = (*begin(number, seed, whole, work), time.monotonic())
        for number, (pid, description, folder, started) in list(running.items()):
            if (found := finish(pid, folder, started)) is not None:
                del running[number]
                shutil.rmtree(folder)
                yield number, description, *found
        time.sleep(0.005)


def main() -> int:
    """Do what the command line says; the exit status."""
    parser = argparse.ArgumentParser(
        "python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=400, help="how many damages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="of damages to do again")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    counts: Counter[tuple[str, str]] = Counter()
    faults = []
    with tempfile.TemporaryDirectory() as name:
        whole, work = Path(name, "whole"), Path(name, "work")
        expected = {}
        for kind, x in KINDS.items():
            (whole / kind).mkdir(parents=True)
            with redirect_stderr(io.StringIO()):  # progress bars
                x.make(whole / kind)
            shutil.copytree(whole / kind, work / kind)
            found = wait_for(launch(kind, work / kind), work / kind)
            if found[0] != "read":
                sys.exit(f"whole files of {kind} cannot be read: {found}")
            expected[kind] = found[1]
        for number, description, outcome, text in cases(
            chosen.only or list(range(chosen.n)), chosen.seed, whole, work
        ):
            kind = list(KINDS)[number % len(KINDS)]
            if outcome == "read":
                outcome = "same result" if text == expected[kind] else "other result"
                text = ""
            counts[kind, outcome] += 1
            allowed = (
                ("refused", "same result")
                if KINDS[kind].sealed
                else ("refused", "same result", "other result")
            )
            if outcome not in allowed:
                faults.append(f"{description}: {outcome}\n{text}")
            if chosen.only or outcome not in allowed:
                print(f"{description}: {outcome}: {text}", flush=True)
    outcomes = sorted({outcome for _, outcome in counts})
    print(f"seed {chosen.seed}\n{'':16}" + "".join(f"{outcome:>18}" for outcome in outcomes))
    for kind in KINDS:
        print(f"{kind:16}" + "".join(f"{counts[kind, outcome]:18}" for outcome in outcomes))
    print(f"{sum(counts.values())} damages, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
