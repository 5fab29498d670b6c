"""What the small tables say of the paper's claims, one by one.

Reads results/table_{1,c,d,drift}_mini.csv, as `python -m evt.reproduce` leaves them, and writes results/claims.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from evt.files import check_writable, write

TABLES = {
    "table_c_mini": ("base", "temporal", "tokenwise", "stgt"),
    "table_1_mini": ("base", "spatial", "temporal", "spatiotemporal"),
    "table_drift_mini": ("base", "tokenwise", "stgt"),
    "table_d_mini": ("base", "temporal"),
}
"""The variants whose rows the claims are of."""
NUMBERS = {
    "table_c_mini": ("op_ratio", "gflops", "map50", "interval"),
    "table_1_mini": ("op_ratio", "map50", "interval"),
    "table_drift_mini": ("map50_part1", "map50_part2"),
    "table_d_mini": ("op_ratio", "top1", "interval"),
}
"""The columns that they read, of which each cell is a number."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and what was found here.

    claim: what the paper says.
    rule: when it is said to hold.
    evidence: the numbers that bear on it, a line each.
    holds: whether it held.
    """

    claim: str
    rule: str
    evidence: Sequence[str]
    holds: bool


def judge(tables: dict[str, pd.DataFrame]) -> list[Claim]:
    """Hold every claim against the tables, by their names."""
    detection, pooling = tables["table_c_mini"], tables["table_1_mini"]
    drift, clips = tables["table_drift_mini"], tables["table_d_mini"]
    return [
        _keeps_accuracy(detection),
        _stgt_loses_more(detection),
        _temporal_beats_tokenwise(detection),
        _savings_add_up(pooling),
        _stgt_drifts(drift),
        _tuning_helps(clips),
        _one_model_serves_a_range(clips),
    ]


def _keeps_accuracy(table: pd.DataFrame) -> Claim:
    base = _of(table, "base").iloc[0]
    rows = _of(table, "temporal")
    cheap = rows[rows.op_ratio >= 2]
    best = cheap.loc[cheap.map50.idxmax()]
    loss = base.map50 - best.map50
    return Claim(
        "The temporal variant keeps accuracy within 1 point at half the operations.",
        "The best temporal row with an op ratio of at least 2 loses at most 1 point of mAP50.",
        [
            f"base: {_map50(base)}",
            *(f"temporal, r = {x.r:.0f}, op ratio {x.op_ratio:.2f}: {_map50(x)}" for x in rows.itertuples()),
            f"the best at 2x or more, r = {best.r:.0f}, loses {loss:.2f} points",
        ],
        loss <= 1,
    )


def _stgt_loses_more(table: pd.DataFrame) -> Claim:
    both = _of(table, "tokenwise").merge(_of(table, "stgt"), on="r", suffixes=("", "_stgt"))
    behind = both.map50 - both.map50_stgt
    return Claim(
        "At equal r, STGT loses more than token-wise gating with a reference.",
        "STGT's mAP50 is lower at every r.",
        [
            f"r = {x.r:.0f}: token-wise {x.map50:.2f}, STGT {x.map50_stgt:.2f}, interval ±{x.interval:.2f}"
            for x in both.itertuples()
        ],
        bool((behind > 0).all()),
    )


def _temporal_beats_tokenwise(table: pd.DataFrame) -> Claim:
    temporal, evidence, wins = _of(table, "temporal"), [], []
    for row in _of(table, "tokenwise").nsmallest(3, "r").itertuples():
        rivals = temporal[temporal.gflops <= row.gflops]
        if rivals.empty:
            continue
        best = rivals.loc[rivals.map50.idxmax()]
        evidence.append(
            f"token-wise, r = {row.r:.0f}, {row.gflops:.3f} GFlops: {row.map50:.2f}; temporal for no more, "
            f"r = {best.r:.0f}, {best.gflops:.3f} GFlops: {best.map50:.2f}"
        )
        wins.append(best.map50 > row.map50)
    return Claim(
        "At equal operations, the temporal variant beats token-wise gating at low r.",
        "For each of the three lowest r of token-wise gating, a temporal row that costs no more has a higher mAP50.",
        evidence,
        bool(wins) and all(wins),
    )


def _savings_add_up(table: pd.DataFrame) -> Claim:
    base, spatial = (_of(table, name).iloc[0] for name in ("base", "spatial"))
    both = _of(table, "temporal").merge(_of(table, "spatiotemporal"), on="r", suffixes=("", "_both"))
    return Claim(
        "Spatial and temporal savings add up.",
        "At every r, pooling saves operations on top of the temporal variant, and loses at most 1 point more than "
        "pooling alone and the temporal variant alone lose together.",
        [
            f"base: {_map50(base)}; spatial: {_map50(spatial)}, op ratio {spatial.op_ratio:.2f}",
            *(
                f"r = {x.r:.0f}: op ratio {x.op_ratio:.2f} without and {x.op_ratio_both:.2f} with pooling; mAP50 "
                f"{x.map50:.2f} and {x.map50_both:.2f}; the losses together would give "
                f"{x.map50 + spatial.map50 - base.map50:.2f}"
                for x in both.itertuples()
            ),
        ],
        bool(
            (both.op_ratio_both > both.op_ratio).all()
            and (both.map50_both >= both.map50 + spatial.map50 - base.map50 - 1).all()
        ),
    )


def _stgt_drifts(table: pd.DataFrame) -> Claim:
    parts = sorted(column for column in table.columns if column.startswith("map50_part"))
    first, last = parts[0], parts[-1]
    base = _of(table, "base").iloc[0]

    def lost(row: pd.Series) -> float:
        """How much further behind the dense model in the last part than in the first."""
        return float((base[last] - row[last]) - (base[first] - row[first]))

    gates = {name: _of(table, name) for name in ("stgt", "tokenwise", "temporal")}
    loss = {name: [lost(row) for _, row in rows.iterrows()] for name, rows in gates.items()}
    evidence = []
    for name, rows in {"base": _of(table, "base"), **gates}.items():
        for _, row in rows.iterrows():
            budget = "" if name == "base" else f", r = {row.r:.0f}"
            values = ", ".join(f"{row[part]:.2f}" for part in parts)
            further = "" if name == "base" else f"; {lost(row):.2f} further behind base at the end"
            evidence.append(f"{name}{budget}: mAP50 by part {values}{further}")
    return Claim(
        "Under slow drift STGT degrades with the length of the sequence, and the reference gate does not.",
        "From the first part of the videos to the last, STGT falls behind base by more than 1 point at every r, and "
        "token-wise gating by less than 1.",
        evidence,
        min(loss["stgt"]) > 1 > max(loss["tokenwise"]),
    )


def _tuning_helps(table: pd.DataFrame) -> Claim:
    base, pairs = _of(table, "base").iloc[0], _tuned(table)
    at_own = [(naive, rows.loc[rows.r == tuned].iloc[0]) for tuned, naive, rows in pairs]
    return Claim(
        "Naive ViViT loses much more than the fine-tuned one.",
        "At every r that was tuned for, fine-tuning takes away at least half of the loss of top-1.",
        [
            f"base: {base.top1:.2f} ±{base.interval:.2f}",
            *(
                f"r = {own.r:.0f}, op ratio {own.op_ratio:.2f}: naive {naive.top1:.2f}, fine-tuned {own.top1:.2f}, "
                f"interval ±{own.interval:.2f}"
                for naive, own in at_own
            ),
        ],
        all(base.top1 - own.top1 <= (base.top1 - naive.top1) / 2 for naive, own in at_own),
    )


def _one_model_serves_a_range(table: pd.DataFrame) -> Claim:
    evidence, served = [], []
    naive = table[(table.variant == "temporal") & table.tuned_r.isna()].set_index("r").top1
    for tuned, _, rows in _tuned(table):
        values = ", ".join(f"{x.top1:.2f} at r = {x.r:.0f}" for x in rows.itertuples())
        evidence.append(f"tuned at {tuned:.0f}: {values}")
        evidence.append("naive: " + ", ".join(f"{naive[r]:.2f} at r = {r:.0f}" for r in rows.r))
        served.append(all(x.top1 >= naive[x.r] for x in rows.itertuples()))
    return Claim(
        "One fine-tuned model serves a range of r.",
        "At r, ±20% and ±40%, a tuned model is never worse than the naive one.",
        evidence,
        all(served),
    )


def _tuned(table: pd.DataFrame) -> list[tuple[float, pd.Series, pd.DataFrame]]:
    """For each r that was tuned for: it, the naive row at it, and the rows of the tuned model."""
    naive = table[(table.variant == "temporal") & table.tuned_r.isna()]
    return [
        (float(str(tuned)), naive[naive.r == tuned].iloc[0], rows)
        for tuned, rows in table[table.tuned_r.notna()].groupby("tuned_r", sort=False)
    ]


def _of(table: pd.DataFrame, variant: str) -> pd.DataFrame:
    return table[table.variant == variant]


def _map50(row: Any) -> str:
    return f"{row.map50:.2f} ±{row.interval:.2f}"


def write_claims(folder: Path) -> Path:
    """Write claims.md beside the tables in a folder.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: a table is damaged, or is not what `python -m evt.reproduce` writes.
    """
    path = folder / "claims.md"
    check_writable(path)
    tables = {name: _read(folder, name) for name in TABLES}
    try:
        claims = judge(tables)
    except (LookupError, ValueError) as error:
        raise ValueError(
            f"{folder}: the tables lack rows that the claims are of ({error}); make reproduce-mini writes them"
        ) from error
    held = sum(claim.holds for claim in claims)
    lines = [
        "# The paper's claims on the generated benchmarks",
        "",
        f"{held} of {len(claims)} held here. Small models on generated videos are not the paper's; a claim that "
        "fails here may hold there, and the other way round. `±` is half of the 95% bootstrap interval over videos "
        f"or clips. Made by `python -m evt.claims` from {', '.join(f'{name}.csv' for name in TABLES)}.",
    ]
    for claim in claims:
        verdict = "held" if claim.holds else "did not hold"
        lines += ["", f"## {claim.claim}", "", f"**{verdict}.** {claim.rule}", ""]
        lines += [f"- {line}" for line in claim.evidence]
    write(path, "\n".join(lines) + "\n")
    return path


def _read(folder: Path, name: str) -> pd.DataFrame:
    """A table with the columns that the claims are of, numbers in all their cells, and rows of each variant."""
    path = folder / f"{name}.csv"
    try:
        table = pd.read_csv(path, index_col=False)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as a csv ({' '.join(str(error).split())})") from error
    parts = [str(column) for column in table if str(column).startswith("map50_part")]
    numbers = dict.fromkeys((*NUMBERS[name], *parts))
    budgets = ["r", "tuned_r"] if name == "table_d_mini" else ["r"]
    for column in ("variant", *budgets, *numbers):
        if column not in table:
            raise ValueError(f"{path}: has no column {column}; make reproduce-mini writes it")
    for column in (*budgets, *numbers):
        whole = column in budgets or table[column].notna().all()  # base has no budget
        if not (whole and pd.api.types.is_numeric_dtype(table[column])):
            raise ValueError(f"{path}: column {column} has cells that are no numbers")
    for variant in TABLES[name]:
        if _of(table, variant).empty:
            raise ValueError(f"{path}: has no rows of the variant {variant}")
    return table
