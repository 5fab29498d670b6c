"""Products of half-precision numbers on processors that have no units for them.

There torch multiplies bfloat16 matrices eight times slower than float32 ones (AVX2, torch 2.13). So they are widened,
multiplied, and rounded once: faster, and closer to the exact product too.
"""

from __future__ import annotations

import torch
from torch import Tensor

# What torch itself asks before it hands bfloat16 to oneDNN; absent from builds without oneDNN. Where it was told to
# leave AVX-512 alone (ATEN_CPU_CAPABILITY), some of its own kernels of bfloat16 refuse to run.
_ASKED = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)()
_SUPPORTED = _ASKED and torch.backends.cpu.get_cpu_capability() != "AVX2"


def wide(x: Tensor) -> Tensor:
    """Widen half-precision numbers to float32 where this processor is slow with them; others stay as they are."""
    narrow = x.dtype in (torch.bfloat16, torch.float16) and x.device.type == "cpu"
    return x.float() if narrow and not (_SUPPORTED and x.dtype == torch.bfloat16) else x
