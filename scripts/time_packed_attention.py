"""Time three ways of attention over clips of different lengths, and print them.

8 clips of a ViT-B that keep 50 to 70% of 1568 tokens. The ways take turns, 5 times; medians.
"""

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
import random
import statistics
import time

import torch

from evt.tokens.packed import attend_by_clip, attend_masked, attend_nested

WAYS = {"clip by clip": attend_by_clip, "mask": attend_masked, "nested tensors": attend_nested}


def main() -> None:
    """Print milliseconds of one layer's attention, each way."""
    imports_are_done()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("threads", type=int, nargs="?", help="of torch; its own choice where none is given")
    if (threads := parser.parse_args().threads) is not None:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    draw = random.Random(0)
    lengths = [draw.randint(784, 1098) for _ in range(8)]
    torch.manual_seed(0)
    q, k, v = torch.randn(3, sum(lengths), 12, 64, device=device)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for lap in range(6):
        for name, attend in WAYS.items():
            start = time.perf_counter()
            attend(q, k, v, lengths)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if lap:  # the first is for warming up
                seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        print(f"{name:>14}  {1e3 * statistics.median(times):8.1f} ms")


if __name__ == "__main__":
    main()
