"""What the small tables say of the paper's claims, one by one.

Reads results/table_{1,c,d,drift}_mini.csv, as `python -m evt.reproduce` leaves them, and writes results/claims.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from evt.files import check_writable, write

with (resources.files("evt.tables") / "claims.yaml").open(encoding="utf-8") as _file:
    SAID: Any = OmegaConf.to_container(OmegaConf.load(_file))

Found = tuple[Sequence[str], bool]
"""The numbers that bear on a claim, a line each, and whether it held."""


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
    return [
        Claim(said["claim"], said["rule"], *JUDGES[name](tables[said["table"]]))
        for name, said in SAID["claims"].items()
    ]


def _keeps_accuracy(table: pd.DataFrame) -> Found:
    base, rows = _of(table, "base").iloc[0], _of(table, "temporal")
    cheap = rows[rows.op_ratio >= 2]
    best = cheap.loc[cheap.map50.idxmax()]
    loss = base.map50 - best.map50
    evidence = [
        f"base: {_map50(base)}",
        *(f"temporal, r = {x.r:.0f}, op ratio {x.op_ratio:.2f}: {_map50(x)}" for x in rows.itertuples()),
        f"the best at 2x or more, r = {best.r:.0f}, loses {loss:.2f} points",
    ]
    return evidence, loss <= 1


def _stgt_loses_more(table: pd.DataFrame) -> Found:
    both = _at_equal_r(table, "tokenwise", "stgt")
    evidence = [
        f"r = {x.r:.0f}: token-wise {x.map50:.2f}, STGT {x.map50_other:.2f}, interval ±{x.interval:.2f}"
        for x in both.itertuples()
    ]
    return evidence, bool((both.map50 > both.map50_other).all())


def _temporal_beats_tokenwise(table: pd.DataFrame) -> Found:
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
    return evidence, bool(wins) and all(wins)


def _savings_add_up(table: pd.DataFrame) -> Found:
    base, spatial = (_of(table, name).iloc[0] for name in ("base", "spatial"))
    both = _at_equal_r(table, "temporal", "spatiotemporal")
    both["together"] = both.map50 + spatial.map50 - base.map50
    saves = both.op_ratio_other > both.op_ratio
    keeps = both.map50_other >= both.together - 1
    evidence = [
        f"base: {_map50(base)}; spatial: {_map50(spatial)}, op ratio {spatial.op_ratio:.2f}",
        *(
            f"r = {x.r:.0f}: op ratio {x.op_ratio:.2f} without and {x.op_ratio_other:.2f} with pooling; mAP50 "
            f"{x.map50:.2f} and {x.map50_other:.2f}; the losses together would give {x.together:.2f}"
            for x in both.itertuples()
        ),
    ]
    return evidence, bool((saves & keeps).all())


def _stgt_drifts(table: pd.DataFrame) -> Found:
    parts = sorted(column for column in table.columns if column.startswith("map50_part"))
    base, evidence = _of(table, "base").iloc[0], []
    # How much further behind the dense model in the last part than in the first.
    behind = base[parts] - table[parts]
    table = table.assign(lost=behind[parts[-1]] - behind[parts[0]])
    for name in ("base", "stgt", "tokenwise", "temporal"):
        for _, row in _of(table, name).iterrows():
            budget = "" if name == "base" else f", r = {row.r:.0f}"
            values = ", ".join(f"{row[part]:.2f}" for part in parts)
            further = "" if name == "base" else f"; {row.lost:.2f} further behind base at the end"
            evidence.append(f"{name}{budget}: mAP50 by part {values}{further}")
    return evidence, bool(_of(table, "stgt").lost.min() > 1 > _of(table, "tokenwise").lost.max())


def _tuning_helps(table: pd.DataFrame) -> Found:
    base, evidence, helped = _of(table, "base").iloc[0], [], []
    for tuned, naive, rows in _tuned(table):
        own = rows.loc[rows.r == tuned].iloc[0]
        evidence.append(
            f"r = {own.r:.0f}, op ratio {own.op_ratio:.2f}: naive {naive[tuned]:.2f}, fine-tuned {own.top1:.2f}, "
            f"interval ±{own.interval:.2f}"
        )
        helped.append(base.top1 - own.top1 <= (base.top1 - naive[tuned]) / 2)
    return [f"base: {base.top1:.2f} ±{base.interval:.2f}", *evidence], all(helped)


def _one_model_serves_a_range(table: pd.DataFrame) -> Found:
    evidence, served = [], []
    for tuned, naive, rows in _tuned(table):
        values = ", ".join(f"{x.top1:.2f} at r = {x.r:.0f}" for x in rows.itertuples())
        evidence.append(f"tuned at {tuned:.0f}: {values}")
        evidence.append("naive: " + ", ".join(f"{naive[r]:.2f} at r = {r:.0f}" for r in rows.r))
        served.append(all(x.top1 >= naive[x.r] for x in rows.itertuples()))
    return evidence, all(served)


JUDGES: dict[str, Callable[[pd.DataFrame], Found]] = {
    "keeps_accuracy": _keeps_accuracy,
    "stgt_loses_more": _stgt_loses_more,
    "temporal_beats_tokenwise": _temporal_beats_tokenwise,
    "savings_add_up": _savings_add_up,
    "stgt_drifts": _stgt_drifts,
    "tuning_helps": _tuning_helps,
    "one_model_serves_a_range": _one_model_serves_a_range,
}


def _tuned(table: pd.DataFrame) -> list[tuple[float, pd.Series, pd.DataFrame]]:
    """For each r that was tuned for: it, top-1 of the naive model by r, and the rows of the tuned model."""
    naive = table[(table.variant == "temporal") & table.tuned_r.isna()].set_index("r").top1
    tuned = table[table.tuned_r.notna()].groupby("tuned_r", sort=False)
    return [(float(str(r)), naive, rows) for r, rows in tuned]


def _at_equal_r(table: pd.DataFrame, variant: str, other: str) -> pd.DataFrame:
    """The rows of a variant, each beside that of another one."""
    return _of(table, variant).merge(_of(table, other), on="r", suffixes=("", "_other"))


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
    tables = {name: _read(folder, name, **said) for name, said in SAID["tables"].items()}
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
        f"or clips. Made by `python -m evt.claims` from {', '.join(f'{name}.csv' for name in tables)}.",
    ]
    for claim in claims:
        verdict = "held" if claim.holds else "did not hold"
        lines += ["", f"## {claim.claim}", "", f"**{verdict}.** {claim.rule}", ""]
        lines += [f"- {line}" for line in claim.evidence]
    write(path, "\n".join(lines) + "\n")
    return path


def _read(
    folder: Path, name: str, variants: Sequence[str], budgets: Sequence[str], numbers: Sequence[str]
) -> pd.DataFrame:
    """A table with the columns that the claims are of, numbers in all their cells, and rows of each variant."""
    path = folder / f"{name}.csv"
    try:
        table = pd.read_csv(path, index_col=False)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as a csv ({' '.join(str(error).split())})") from error
    parts = [str(column) for column in table if str(column).startswith("map50_part")]
    for column in ("variant", *budgets, *numbers):
        if column not in table:
            raise ValueError(f"{path}: has no column {column}; make reproduce-mini writes it")
    for column in (*budgets, *numbers, *parts):
        whole = column in budgets or table[column].notna().all()  # base has no budget
        if not (whole and pd.api.types.is_numeric_dtype(table[column])):
            raise ValueError(f"{path}: column {column} has cells that are no numbers")
    for variant in variants:
        if _of(table, variant).empty:
            raise ValueError(f"{path}: has no rows of the variant {variant}")
    return table
