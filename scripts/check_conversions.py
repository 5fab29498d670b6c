"""Hold models of timm and transformers with random weights against what evt.convert makes of them.

python scripts/check_conversions.py docs/conversions.md
"""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from evt.errors import ConversionError
from evt.files import check_writable, sentence, write
from evt.models.foreign import convert
from evt.models.foreign.examples import EXAMPLES, GRIDS, REFUSED, SMALL_GRIDS, errors

TOP = """# What `evt.convert` converts

Each row is a model with random weights, float32, on random pictures, and what `evt.convert` makes of it: the
relative L2 error of its features, or of what a whole model gives. *Dense* is the first frame of streams, and the
network without a stream, which is the model's own code; *r = all* a later frame of streams in which all tokens pass,
by `temporal` and by `rows`; the larger error each. *Other size* and *batch of 2* are the largest of all these. Where
there is no other size, the model itself takes one alone, or takes others when it is told to.

{made}

| architecture | parameters, M | dense | r = all | other size | batch of 2 |
|---|---|---|---|---|---|
"""

BOTTOM = """
## What is refused

A model is converted exactly or not at all. These are not, with what is said of them:

| architecture | why |
|---|---|
"""


def rows(small: bool) -> Iterator[str]:
    """A row of the table for each example."""
    own, other = SMALL_GRIDS if small else GRIDS
    for example in tqdm(EXAMPLES, disable=None):
        model = example.build(small)
        net = convert(model)
        torch.manual_seed(0)
        values = [f"{sum(x.numel() for x in model.parameters()) / 1e6:.3g}"]
        values += [f"{error:.1e}" for error in errors(example, model, net, 1, own)]
        values.append(f"{max(errors(example, model, net, 1, other)):.1e}" if example.resizes else "")
        values.append(f"{max(errors(example, model, net, 2, own)):.1e}")
        yield f"| {example.title} | {' | '.join(values)} |\n"


def refusals() -> Iterator[str]:
    """A row of the table for each example of what is refused."""
    for example in REFUSED:
        model = example.build()
        try:
            convert(model.train("training" in example.note))
        except ConversionError as error:
            yield f"| {example.title} | {str(error).partition(' (known are ')[0]} |\n"


if __name__ == "__main__":
    imports_are_done()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="models of two blocks, in seconds")
    arguments = parser.parse_args()
    try:
        check_writable(arguments.out)
        versions = {name: importlib.metadata.version(name) for name in ("timm", "transformers", "torch")}
        small = " --small" * arguments.small
        made = f"Made by `python scripts/check_conversions.py docs/conversions.md{small}`, with "
        made += f"{', '.join(f'{name} {version}' for name, version in versions.items())}."
        if arguments.small:
            made += " That builds each architecture with two blocks and a width of 32."
        write(arguments.out, TOP.format(made=made), *rows(arguments.small), BOTTOM, *refusals())
    except ModuleNotFoundError as error:
        parser.exit(2, f"error: {error.name} is not installed: pip install 'evt[timm,transformers]'\n")
    except OSError as error:
        parser.exit(2, f"error: {sentence(error)}\n")
    print(f"written to {arguments.out}")
