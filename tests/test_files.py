"""Writing: whole files or none, on small disks, in read-only and vanished folders."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from evt import bench, claims, reproduce, train
from evt.data.sprites import SpriteClips, SpriteVideos
from evt.data.sprites.writing import write_kinetics, write_vid
from evt.errors import CheckpointError, DataError
from evt.evaluate.ledger import Ledger
from evt.files import append, check_writable, replacing, sealed, unsealed, write, write_together
from evt.lock import locked
from evt.models.checkpoints import read_checkpoint, save_checkpoint
from evt.run import run
from evt.training.progress import Progress
from evt.training.spatial_cache import SpatialCache
from tests.commands import SMALL_RUN, Refused, command, failed, run_small
from tests.common import ROOT
from tests.data.test_frames import write_frames
from tests.training.runs import trained
from tests.vivit import filled, small_vivit


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be larger than 20 kB: as on a full disk, but without the rights to mount one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that this process may not write to; root becomes nobody for it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "folder"
        folder.mkdir()
        (folder / "old").write_text("of before")
        os.chmod(name, 0o755)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            if not os.access(ROOT, os.R_OK, effective_ids=True):
                pytest.skip("nobody, as whom root runs this, may not read the checkout")
            yield folder
        finally:
            if root:
                os.seteuid(0)
        folder.chmod(0o755)


def fill(disk: Path, but: int) -> Path:
    """Fill a disk with a file, but for some bytes, and whole pages of 4096 as the disk has them."""
    rest = os.statvfs(disk)
    (disk / "full").write_bytes(b"0" * (rest.f_bavail * rest.f_bsize - but))
    return disk / "full"


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All files of a folder, with when they were written; locks are always left."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def parts(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if ".part" in path.name]


def test_a_file_that_cannot_be_written_whole_leaves_that_of_before(tmp_path: Path, small_files: None) -> None:
    write(tmp_path / "a.json", "before")
    with pytest.raises(OSError, match=r"too large.*/a\.json'$"):
        write(tmp_path / "a.json", "0" * 30_000)
    assert (tmp_path / "a.json").read_text() == "before"
    assert parts(tmp_path) == []


def test_writers_of_one_file_do_not_write_over_each_other(tmp_path: Path) -> None:
    """Nor does one that only looks whether it may be written."""
    path = tmp_path / "a.json"
    with replacing(path) as part:
        part.write_text("first")
        check_writable(path)
        write(path, "second")
    assert path.read_text() == "first"
    assert [x.name for x in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_run_left_half_written_goes_with_the_next(tmp_path: Path) -> None:
    """Else a run that is killed now and then fills the disk with what nothing reads."""
    (tmp_path / "trace").mkdir()
    for name in (
        ".0123456789abcdef.part",
        "trace/.0123456789abcdef.part.safetensors",
        "trace/.a.part.png",
        "b.part",
    ):
        (tmp_path / name).write_text("half")
    with locked(tmp_path):
        left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".lock", "b.part", "trace/.a.part.png"]


def test_names_of_any_length_are_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 125 + ".json")  # 255 bytes, as many as there may be
    check_writable(path)
    write(path, "x")
    assert [x.name for x in tmp_path.iterdir()] == [path.name]


def test_links_and_rights_outlast_writing(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere/a.json", tmp_path / "a.json"
    link.symlink_to(target)
    check_writable(link)
    write(link, "through a link that leads to nothing yet")
    target.chmod(0o640)
    write(link, "again")
    assert link.is_symlink()
    assert target.read_text() == "again"
    assert target.stat().st_mode & 0o777 == 0o640
    private = tmp_path / "b.json"
    write(private, "for all")
    assert private.stat().st_mode & 0o777 == 0o666 & ~umask()
    private.chmod(0o400)
    with replacing(private) as part:
        assert not part.stat().st_mode & 0o077  # while it is written, too
        part.write_text("for me")
    assert private.stat().st_mode & 0o777 == 0o400


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_names_are_on_the_disk_as_well_as_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file is put there before it takes its name, and its folder after; of a log's lines, once."""
    events: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_fsync(handle)

    def replace(source: Path, target: Path) -> None:
        events.append("name")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write(tmp_path / "a.json", "x")
    assert events == ["file", "name", "folder"]
    events.clear()
    append(tmp_path / "log.jsonl", "x")
    append(tmp_path / "log.jsonl", "y")
    assert events == ["file", "folder", "file"]


def test_files_that_belong_together_are_replaced_together(tmp_path: Path, small_files: None) -> None:
    both = tmp_path / "a.json", tmp_path / "b.json"
    write_together(dict.fromkeys(both, "before"))
    for large in both:
        with pytest.raises(OSError, match=rf"too large.*/{large.name}'$"):
            write_together({path: "0" * (30_000 if path == large else 1) for path in both})
        assert [path.read_text() for path in both] == ["before", "before"]
    assert parts(tmp_path) == []


def test_a_line_is_added_whole_or_not(tmp_path: Path, small_files: None) -> None:
    """And a line that fits after one that does not is added."""
    path = tmp_path / "log.jsonl"
    append(path, "0" * 15_000)
    with pytest.raises(OSError, match=r"/log\.jsonl'$"):
        append(path, "1" * 8_000)
    append(path, "2" * 100)
    assert path.read_text() == "0" * 15_000 + "\n" + "2" * 100 + "\n"


def test_on_a_full_disk_a_sentence_names_the_file(small_disk: Path) -> None:
    write(small_disk / "a.json", "before")
    fill(small_disk, but=0)
    for attempt in (write, append):
        with pytest.raises(OSError, match=r"No space left on device: '.*/disk/a\.json'$"):
            attempt(small_disk / "a.json", "0" * 30_000)
    with pytest.raises(CheckpointError, match=r"/disk/w\.safetensors: cannot be written: No space left"):
        save_checkpoint({"a": torch.zeros(9999)}, small_disk / "w.safetensors")
    with pytest.raises(OSError, match=r"No space left.*/disk/b\.json'$"):
        check_writable(small_disk / "b.json")
    assert (small_disk / "a.json").read_text() == "before"
    assert sorted(path.name for path in small_disk.iterdir()) == ["a.json", "full"]


def test_training_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    expected = trained(tmp_path / "whole")
    space = fill(small_disk, but=24_576)
    with pytest.raises(OSError, match=r"No space left on device: '.*/disk/run/(last\.pt|log\.jsonl)'$"):
        trained(small_disk / "run")
    assert parts(small_disk) == []
    space.unlink()
    resumed = trained(small_disk / "run")
    assert all(map(torch.equal, expected.parameters(), resumed.parameters()))
    assert (tmp_path / "whole/log.jsonl").read_text() == (small_disk / "run/log.jsonl").read_text()


def test_the_cache_on_a_full_disk_goes_on_when_there_is_room(
    monkeypatch: pytest.MonkeyPatch, small_disk: Path
) -> None:
    space = fill(small_disk, but=16_384)
    with pytest.raises(OSError, match=r"No space left on device: '.*/disk/cache/00\d+\.safetensors'$"):
        filled(small_disk / "cache", small_vivit())
    assert parts(small_disk) == []
    space.unlink()
    assert len(filled(small_disk / "cache", small_vivit())) == 10


def test_a_run_whose_metrics_cannot_be_written_goes_on_after_its_videos(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are forgotten only when metrics.json is there: the second run measures nothing."""
    with monkeypatch.context() as patch:
        patch.setattr("evt.run.write_together", lambda _: write(Path("/dev/full/metrics.json"), ""))
        told = refused(*SMALL_RUN, f"hydra.run.dir={tmp_path}")
    assert told == "error: /dev/full/metrics.json: not a directory"
    assert (tmp_path / "videos.jsonl").exists()
    monkeypatch.setattr("evt.evaluate.loop.observe", lambda *_: pytest.fail("it was measured again"))
    assert run_small(monkeypatch, tmp_path)["later"]["frames"] == 2
    assert not (tmp_path / "videos.jsonl").exists()


def test_what_cannot_be_written_is_told_before_the_work(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, read_only: Path
) -> None:
    """Every command: its folder, and the folder of the tables."""
    monkeypatch.setattr("evt.models.loading.check_memory", lambda *_: pytest.fail("a model was built"))
    for folder in (read_only, read_only / "new", read_only / "old"):
        told = refused(*SMALL_RUN, f"hydra.run.dir={folder}")
        assert told.startswith(f"error: {folder}")
        assert told.rpartition(": ")[2] in ("permission denied", "file exists", "not a directory")
    told = refused(f"hydra.run.dir={read_only}", task=train.train_task)
    assert told == f"error: {read_only}/.lock: permission denied"
    with tempfile.TemporaryDirectory() as folder_of_run:
        out = [f"out={read_only}", f"hydra.run.dir={folder_of_run}"]
        told = refused(*out, task=reproduce.reproduce)
    assert told == f"error: {read_only}/table_c.csv: permission denied"
    with pytest.raises(OSError, match=r"Permission denied: '.*/folder/x/y\.json'|Permission denied: '.*/x'"):
        check_writable(read_only / "x" / "y.json")
    with pytest.raises(OSError, match="Permission denied"):
        write_vid(SpriteVideos(1, 1), read_only / "tree", "val", "png")
    assert [path.name for path in read_only.iterdir()] == ["old"]


def test_claims_that_cannot_be_written_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], read_only: Path
) -> None:
    monkeypatch.setattr("evt.tables.claims.judge", lambda _: pytest.fail("it was judged"))
    assert failed(capsys, lambda: claims.main([str(read_only)])) == (
        f"error: {read_only}/claims.md: permission denied"
    )


def test_a_vanished_folder_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run" / "videos.jsonl")
    (tmp_path / "run").rmdir()
    with pytest.raises(FileNotFoundError, match=r"run/videos\.jsonl"):
        ledger.put("a", 1)
    with pytest.raises(FileNotFoundError, match=r"run/metrics\.json"):
        write(tmp_path / "run" / "metrics.json", "")


def test_videos_on_a_full_disk_are_whole(small_disk: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*\.png'$"):
        write_vid(SpriteVideos(99, 2, (64, 64)), small_disk / "tree", "val", "png")
    whole = [len(list(folder.iterdir())) for folder in (small_disk / "tree/Data/VID/val").iterdir()]
    assert whole
    assert set(whole) == {2}


def test_clips_on_a_full_disk_are_those_of_the_csv(small_disk: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*\.(mp4|csv)'$"):
        write_kinetics(SpriteClips(99, 2), small_disk, "val")
    rows = (small_disk / "val.csv").read_text().splitlines()[1:]
    clips = {f"{x.split(',')[1]}_000000_00000{x.split(',')[3]}.mp4" for x in rows}
    assert clips
    assert clips == {path.name for path in (small_disk / "val").iterdir()}


@pytest.mark.parametrize(
    "damage", [lambda x: x[:-1], lambda x: b"1" + x[1:], lambda x: x + b"\n", lambda x: b""]
)
def test_sealed_content_that_is_damaged_is_none(damage) -> None:  # type: ignore[no-untyped-def]
    content = bytes(range(256))
    assert unsealed(sealed(content)) == content
    assert unsealed(damage(sealed(content))) is None


def test_weights_whose_numbers_changed_are_refused(tmp_path: Path) -> None:
    """One bit of one number, and a type of the same size: what safetensors itself reads without a word."""
    path = tmp_path / "w.safetensors"
    save_checkpoint({"a": torch.ones(4, dtype=torch.float16)}, path)
    whole = path.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole.replace(b'"F16"', b'"I16"')):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"w\.safetensors: is damaged"):
            read_checkpoint(path)


def test_a_clip_that_changed_in_the_cache_is_refused(tmp_path: Path) -> None:
    cache: SpatialCache = filled(tmp_path, small_vivit())
    shard = cache.clips[0][2]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match=r"clip_\d is not what was written\); delete it, and it is made anew"):
        [cache[i] for i in range(len(cache))]


@pytest.mark.parametrize(
    "content", ["[]", "[" * 5000, "\udcff", '{"data": "x"', json.dumps({"data": "clips"})]
)
def test_a_cache_of_a_damaged_origin_is_refused(tmp_path: Path, content: str) -> None:
    filled(tmp_path, small_vivit())
    (tmp_path / "cache.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"cache\.json: broken|was made with other"):
        filled(tmp_path, small_vivit())


def test_shards_of_other_places_and_caches_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_vivit()
    filled(tmp_path / "a", model)
    filled(tmp_path / "b", model, r=6)
    second = tmp_path / "a/00001.safetensors"
    for other in (tmp_path / "a/00000.safetensors", tmp_path / "b/00001.safetensors"):
        second.write_bytes(other.read_bytes())
        with pytest.raises(DataError, match=r"00001\.safetensors: .*written for another place"):
            filled(tmp_path / "a", model)


def test_a_checkpoint_is_in_memory_once_beside_the_model(tmp_path: Path) -> None:
    """What torch makes of 8 MB, and no copy of it."""
    model = torch.nn.Linear(1024, 2048)
    optimizers = {"optimizer": torch.optim.SGD(model.parameters())}
    progress = Progress(tmp_path, model, optimizers, torch.amp.GradScaler("cpu", enabled=False), {})
    tracemalloc.start()
    progress.save()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = (tmp_path / "last.pt").stat().st_size
    assert size > 8e6
    assert most < 1.5 * size, f"{most} bytes for a file of {size}"


def test_an_edited_log_is_restored_from_the_checkpoint(tmp_path: Path) -> None:
    """No step is lost, and none is there twice, whatever became of the file."""
    trained(tmp_path)
    log = (tmp_path / "log.jsonl").read_text()
    for edited in ("", log + log, log[:-7]):
        (tmp_path / "log.jsonl").write_text(edited)
        trained(tmp_path)
        assert (tmp_path / "log.jsonl").read_text() == log


def test_a_refused_run_leaves_all_of_the_first(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Hydra's files, too; a sweep likewise."""
    from evt.lock import locked

    sweep = ["-m", *SMALL_RUN, f"hydra.sweep.dir={tmp_path}"]
    command(monkeypatch, run, *sweep, "model.seed=1")
    before = contents(tmp_path)
    assert {".hydra", "multirun.yaml"} <= {path.name for path in tmp_path.rglob("*")}
    capsys.readouterr()
    with locked(tmp_path):
        assert "give another hydra.sweep.dir" in refused(*sweep)
    with locked(tmp_path / "0"):
        told = refused(*SMALL_RUN, f"hydra.run.dir={tmp_path}/0")
        assert "another run is writing to" in told
    assert contents(tmp_path) == before


def test_a_run_refused_for_its_settings_leaves_all_of_the_first(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever is found wrong, and when: by the config, the data, the model, or in the first frame."""
    first = tmp_path / "first"
    frames = write_frames(tmp_path / "frames", ["0.png", "1.png"])
    (frames / "1.png").write_bytes((frames / "0.png").read_bytes()[:60])
    small = ["model=vitdet_mini", "compare=false", f"hydra.run.dir={first}"]
    command(monkeypatch, run, *small, "policy.r=8", "data.n_videos=1", "data.n_frames=2")
    before = contents(first)
    assert {"metrics.json", "detections.jsonl", "config.yaml"} <= {Path(path).name for path in before}
    for wrong, said in {
        ("variant=spatial", "variant.pool=99"): "pool is 99",
        ("policy.r=100000",): "policy.r is 100000",
        ("data=vid", f"data.root={tmp_path}"): "Data/VID/val",
        ("model.checkpoint=none.pth",): "none.pth",
        ("data=frames", f"data.path={frames}"): "1.png",  # the second frame, when the first is done
    }.items():
        assert said in refused(*small, *wrong)
        assert before.items() <= contents(first).items(), wrong  # what was begun may have left a log
    again = f"hydra.run.dir={first}"
    assert "model.size" in refused("model.size=-1", again, task=bench.bench)
    assert "quick is 3" in refused("quick=3", again, task=reproduce.reproduce)
    training = ["task=vitdet_mini", "train.epochs=0", again]
    assert "train.epochs is 0" in refused(*training, task=train.train_task)
    assert before.items() <= contents(first).items()


def test_a_later_run_takes_the_place_of_the_first_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its config, too; and what it has none of goes."""
    small = ["data.n_videos=1", "data.n_frames=2", "policy.r=8", "compare=false", f"hydra.run.dir={tmp_path}"]
    command(monkeypatch, run, "model=vitdet_mini", *small)
    assert (tmp_path / "detections.jsonl").exists()
    run_small(monkeypatch, tmp_path)
    assert not (tmp_path / "detections.jsonl").exists()
    assert "policy.r=16" in (tmp_path / ".hydra/overrides.yaml").read_text()


def test_a_refused_first_run_leaves_nothing(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else the next would be taken for a second, and its config kept only at its end."""
    refused(*SMALL_RUN, "variant=spatial", "variant.pool=99", f"hydra.run.dir={tmp_path}")
    assert not (tmp_path / ".hydra").exists()
    with monkeypatch.context() as patch:
        patch.setattr("evt.run.measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(SystemExit, match="130"):
            command(patch, run, *SMALL_RUN, f"hydra.run.dir={tmp_path}")
    assert "policy.r=16" in (tmp_path / ".hydra/overrides.yaml").read_text()


def test_a_sweep_none_of_whose_points_can_be_run_leaves_the_table_of_the_first(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sweep = ["-m", *SMALL_RUN, f"hydra.sweep.dir={tmp_path}"]
    command(monkeypatch, run, *sweep, "model.seed=1")
    before = contents(tmp_path)
    assert {"sweep.csv", "multirun.yaml"} <= {Path(path).name for path in before}
    told = refused(*sweep, "model.size=-16,-32")
    assert told.startswith("error: 2 of the sweep's 2 points could not be run")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("draw_sprites.py", ["OUT.png"]),
        ("convert_checkpoint.py", ["there_is_none.pth", "OUT.safetensors"]),
        ("prepare_vid.py", ["there_is_none", "--write-json", "OUT.json"]),
    ],
)
def test_scripts_tell_what_cannot_be_written_before_they_begin(
    tmp_path: Path, script: str, arguments: list[str]
) -> None:
    """Of what is wrong, too, with what they read, they would say so only then."""
    (tmp_path / "file").touch()
    given = [x.replace("OUT", f"{tmp_path}/file/x") for x in arguments]
    ended = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, *given], capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert (ended.stdout + ended.stderr).strip().removeprefix(
        "error: "
    ) == f"{tmp_path}/file: not a directory"
