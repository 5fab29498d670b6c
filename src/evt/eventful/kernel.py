"""What a frame takes longest for, by kernels of this package.

attention.cpp is attention and its update, of many windows, heads and streams in one call; distances.cpp how much
tokens changed at a gate.

They serve single precision and bfloat16 on processors with AVX2 or AVX-512; the latter by matrix units (AMX) where
there are such. They are built when first needed, by the C++ compiler that $CXX names, or c++, and kept in the
user's cache. Without a compiler, or with EVT_KERNEL=off, torch's operators do the same, slower.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shlex
import subprocess
import tempfile
from ctypes import POINTER, Structure, byref, c_float, c_int, c_int64, c_void_p
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from evt.eventful.groups import Groups
from evt.eventful.positions import Positions
from evt.eventful.torch_attention import KEPT

log = logging.getLogger(__name__)

SOURCES = [
    Path(__file__).with_name(name) for name in ("attention.cpp", "distances.cpp", "lanes.h", "tiles.h")
]

_AVX2 = ("-mavx2", "-mfma")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl")

FLAGS = {"AVX2": _AVX2, "AVX512": _AVX512, "AMX": (*_AVX512, "-mamx-tile", "-mamx-bf16")}
"""By what torch says of the processor: $ATEN_CPU_CAPABILITY=avx2 makes of one with AVX-512 one without. The last has
matrix units, too."""

COMMON = ("-std=c++17", "-O3", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC")


SHARED = 2**15
"""With fewer numbers than this to tell apart, threads cost more than they save."""

LANES = 16
"""What rows of tables are filled up to: a multiple of the kernel's."""


_FILLED = WeakTensorKeyDictionary()
"""Of tables of relative positions, which are the same from frame to frame: what `_filled` made of them."""


class _Tokens(Structure):
    """See attention.cpp, as of all below."""

    _fields_ = (("data", c_void_p), ("head", c_int64), ("token", c_int64))


class _Term(Structure):
    _fields_ = (
        ("table", c_void_p),
        *(
            (name, c_int64)
            for name in ("pairs", "stride", "m", "n", "query_by", "query_to", "key_by", "key_to")
        ),
    )


class _Call(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("heads", "groups", "d", "n_terms")),
        ("scale", c_float),
        *(
            (name, c_void_p)
            for name in ("query_at", "query_begin", "query_place", "key_at", "key_begin", "key_place")
        ),
        *((name, _Tokens) for name in ("q", "k", "v", "out", "lse")),
        *((name, c_void_p) for name in ("pad_k", "pad_v")),
        ("terms", _Term * 2),
        *((name, _Tokens) for name in ("old_k", "old_v")),
        ("lost", c_void_p),
        ("kept", c_float),
    )


def serves(q: Tensor) -> bool:
    """Whether the kernel runs for such queries here; the first time, this builds it."""
    return (
        q.dtype in (torch.float32, torch.bfloat16)
        and q.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
        and _library() is not None
    )


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor | None,
    groups: Groups,
    positions: Positions | None,
    scale: float,
    pad: Tensor | None,
) -> None:
    """See `evt.eventful.torch_attention.attend_groups`."""
    call = _Arguments(q, out, lse, groups, positions, scale)
    call.tokens("k", k)
    call.tokens("v", v)
    call.pointer("key_at", groups.keys())
    call.begin("key_begin", [groups.n_keys] * len(groups.numbers))
    if pad is not None:
        call.pointer("pad_k", pad[0])
        call.pointer("pad_v", pad[1])
    call.run()


def update(
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    old: tuple[Tensor, Tensor],
    new: tuple[Tensor, Tensor],
    keys: list[Tensor],
    groups: Groups,
    positions: Positions | None,
    scale: float,
) -> Tensor:
    """See `evt.eventful.torch_attention.update_groups`."""
    call = _Arguments(q, out, lse, groups, positions, scale)
    for name, x in zip(("old_k", "old_v", "k", "v"), (*old, *new), strict=True):
        call.tokens(name, x)
    call.pointer("key_place", torch.cat(keys))
    call.begin("key_begin", [len(own) for own in keys])
    lost = torch.empty(len(q), groups.n_queries, dtype=torch.bool)
    call.pointer("lost", lost)
    call.fields.kept = KEPT[q.dtype]
    call.run()
    return lost.any(0)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """The L2 norm of the difference of tokens, (B, N, D) each and of a type, to (B, N, 1) in single precision."""
    library = _library()
    assert library is not None
    assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
    a, b = a.contiguous(), b.contiguous()
    to = a.new_empty(*a.shape[:-1], 1, dtype=torch.float32)
    threads = torch.get_num_threads() if a.numel() >= SHARED else 1
    library.evt_distances(
        a.data_ptr(), b.data_ptr(), to.numel(), a.shape[-1], to.data_ptr(), a.dtype == torch.bfloat16, threads
    )
    return to


def _filled(table: Tensor) -> Tensor:
    """A table (n, m, d) as the kernel reads it, (n, d, m and zeros)."""
    if table not in _FILLED:
        _FILLED[table] = F.pad(table.transpose(1, 2), (0, -table.shape[1] % LANES)).float().contiguous()
    return _FILLED[table]


class _Arguments:
    """What a call has in common; tensors whose numbers are not where the kernel reads them are copied.

    fields: what the kernel is given.
    """

    def __init__(
        self,
        q: Tensor,
        out: Tensor,
        lse: Tensor | None,
        groups: Groups,
        positions: Positions | None,
        scale: float,
    ) -> None:
        assert out.stride(-1) == 1  # it is written where it is, as is the next
        assert lse is None or lse.stride(-1) == 1
        self._kept: list[Tensor] = []  # until the kernel has run
        queries = groups.queries()
        terms = [] if positions is None else positions.terms()
        self.fields = _Call(
            heads=len(q), groups=len(groups.numbers), d=q.shape[2], n_terms=len(terms), scale=scale
        )
        self._half = q.dtype == torch.bfloat16
        at = torch.cat(queries) if queries else torch.empty(0, dtype=torch.int64)
        self.pointer("query_at", at)
        self.pointer("query_place", groups.places(at))
        self.begin("query_begin", [len(own) for own in queries])
        self.tokens("q", q)
        self.tokens("out", out)
        if lse is not None:
            self.tokens("lse", lse)
        for i, term in enumerate(terms):
            n, m = term.query[1], term.key[1]
            table = self._keep(term.table.float() if term.pairs else _filled(term.table))
            stride = table.shape[2]
            self.fields.terms[i] = _Term(table.data_ptr(), term.pairs, stride, m, n, *term.query, *term.key)

    def pointer(self, name: str, x: Tensor) -> None:
        """Set a field to where numbers begin that follow one another."""
        setattr(self.fields, name, self._keep(x).data_ptr())

    def begin(self, name: str, counts: list[int]) -> None:
        """Set a field to where each of some groups begins, and the last one ends."""
        self.pointer(name, torch.tensor([0, *accumulate(counts)]))

    def tokens(self, name: str, x: Tensor) -> None:
        """Set a field to tokens (H, n, d), or to a number of each, (H, n)."""
        if x.stride(-1) != 1 and x.shape[-1] > 1:
            x = self._keep(x)
        self._kept.append(x)
        setattr(self.fields, name, _Tokens(x.data_ptr(), x.stride(0), x.stride(1)))

    def run(self) -> None:
        """Call the kernel."""
        library = _library()
        assert library is not None
        library.evt_attention(byref(self.fields), self._half, torch.get_num_threads())

    def _keep(self, x: Tensor) -> Tensor:
        self._kept.append(x.contiguous())
        return self._kept[-1]


def _levels() -> list[str]:
    """Of `FLAGS`, those that this processor serves and are worth trying, the best first."""
    level = torch.backends.cpu.get_cpu_capability()
    capabilities: dict[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # older versions of torch do not tell
    tiles = level == "AVX512" and capabilities.get("amx_bf16")
    return [*["AMX"] * bool(tiles), *[level] * (level in FLAGS)]  # compilers may be too old for the former


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """The kernel for this processor, built if it has not been; None, and a line that says why, if it cannot be."""
    levels = [] if os.environ.get("EVT_KERNEL") == "off" else _levels()
    for level in levels:
        try:
            library = ctypes.CDLL(str(_built(FLAGS[level])))
            break
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"") or str(error).encode()
            reason = said.decode(errors="replace").strip().splitlines()[0]
            log.debug("no kernel was built for %s (%s)", level, reason)
    else:
        if levels:
            log.warning(
                "attention and gates run on torch's operators, which is slower: no kernel was built (%s)",
                reason,
            )
        return None
    library.evt_attention.argtypes = (POINTER(_Call), c_int, c_int)
    library.evt_attention.restype = None
    library.evt_distances.argtypes = (*[c_void_p] * 2, *[c_int64] * 2, c_void_p, *[c_int] * 2)
    library.evt_distances.restype = None
    return library


def _built(flags: tuple[str, ...]) -> Path:
    """The kernel in the cache, built if it has not been.

    Raises:
        OSError, RuntimeError, CalledProcessError: it cannot be.
    """
    command = [*shlex.split(os.environ.get("CXX", "c++")), *COMMON, *flags]
    sources = [source.read_bytes() for source in SOURCES]
    name = hashlib.sha256(b"".join([" ".join(command).encode(), *sources])).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evt"
    built = cache / f"kernel-{name}.so"
    if not built.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            part = Path(folder) / "kernel.so"
            subprocess.run(
                [*command, *map(str, SOURCES[:2]), "-o", str(part)], check=True, capture_output=True
            )
            part.replace(built)
    return built
