"""The cache of spatial outputs: right, resumable, and clear about what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evt.errors import DataError
from evt.eventful import VARIANTS, TopR
from tests.vivit import Clips, filled, small_vivit

TEMPORAL = VARIANTS["temporal"]


def test_the_cache_holds_what_the_spatial_model_gives(tmp_path: Path) -> None:
    """Else the temporal model would be tuned for something it never sees."""
    model = small_vivit()
    cache = filled(tmp_path, model)
    assert [name for name, *_ in cache.clips] == [f"clip_{i}" for i in range(10)]
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        f"0000{i}.safetensors" for i in range(3)
    ]
    for i in (0, 5, 9):
        clip = Clips(10)[i]
        spatial, label = cache[i]
        assert label == clip.label
        expected = model.run_spatial(model.preprocess(clip.frames), TEMPORAL, TopR(5))
        torch.testing.assert_close(spatial, expected, rtol=0, atol=0)


def test_an_interrupted_cache_goes_on_at_its_next_shard(tmp_path: Path) -> None:
    """A clip of the second shard stops the first run; a half-written shard of a kill is not taken for one."""
    model = small_vivit()
    with pytest.raises(DataError, match=r"broken\.mp4"):
        filled(tmp_path, model, Clips(10, (6,)), on_error="fail")
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    (tmp_path / ".00001.safetensors.partial").write_bytes(b"half")
    data = Clips(10)
    cache = filled(tmp_path, model, data)
    assert len(cache) == 10
    # All clips are listed to see that they are the same; those of the shard that is there are not read again.
    assert data.read[10:] == [f"clip_{i}" for i in range(4, 10)]
    data.read.clear()
    filled(tmp_path, model, data)
    assert len(data.read) == 10


def test_broken_clips_are_left_out_of_the_cache_and_listed(tmp_path: Path) -> None:
    for _ in range(2):  # filled, and opened again
        cache = filled(tmp_path, small_vivit(), Clips(10, broken=(0, 7)))
        assert [name for name, *_ in cache.clips] == [f"clip_{i}" for i in (1, 2, 3, 4, 5, 6, 8, 9)]
        assert set(cache.skipped) == {"clip_0", "clip_7"}
    with pytest.raises(DataError, match="none of its 2 clips could be read"):
        filled(tmp_path / "none", small_vivit(), Clips(2, broken=(0, 1)))


def test_a_cache_of_something_else_is_refused(tmp_path: Path) -> None:
    """Else a model would be tuned on the outputs of another, and nobody would know."""
    model = small_vivit()
    filled(tmp_path, model)
    with pytest.raises(DataError, match="was made with other policy; choose another folder"):
        filled(tmp_path, model, r=6)
    with pytest.raises(DataError, match="other clips"):
        filled(tmp_path, model, Clips(9))
    with pytest.raises(DataError, match="other num_heads"):
        filled(tmp_path, small_vivit(num_heads=2))
    torch.nn.init.zeros_(model.temporal.norm.bias)  # not of the spatial model
    filled(tmp_path, model)
    torch.nn.init.normal_(model.spatial.norm.bias)
    with pytest.raises(DataError, match="other weights"):
        filled(tmp_path, model)


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    filled(tmp_path, small_vivit())
    (tmp_path / "00001.safetensors").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"00001.safetensors: not a shard of spatial outputs .* delete it"):
        filled(tmp_path, small_vivit())
