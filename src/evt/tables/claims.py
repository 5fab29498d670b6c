"""What the small tables say of claims, the paper's and ours, one by one; see `evt.claims`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from math import isnan, nan
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from evt.files import check_writable, write
from evt.tables.contrasts import VERDICTS, Found, Written, accuracy, read

with (resources.files("evt.tables") / "claims.yaml").open(encoding="utf-8") as _file:
    SAID: Any = OmegaConf.to_container(OmegaConf.load(_file))

Judged = tuple[Sequence[str], Sequence[Found]]
"""Figures beside those that a claim is judged by, a line each, and these."""


@dataclass(frozen=True)
class Claim:
    """A claim, and what was found here.

    claim: what it says.
    rule: when it is said to hold.
    context: figures beside those that it is judged by, a line each.
    found: these.
    """

    claim: str
    rule: str
    context: Sequence[str]
    found: Sequence[Found]

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`: it held where all that was found says so, and did not where anything says not."""
        verdicts = {found.verdict for found in self.found}
        return next((x for x in ("did not hold", "undecided") if x in verdicts), "held")


def judge(tables: Mapping[str, Written]) -> list[Claim]:
    """Hold every claim against the tables, by their names.

    Raises:
        LookupError: a table lacks rows that a claim is of.
    """
    return [
        Claim(said["claim"], said["rule"], *JUDGES[name](tables[said["table"]]))
        for name, said in SAID["claims"].items()
    ]


def _keeps_accuracy(table: Written) -> Judged:
    (base,) = table.of("base")
    half = table.at_cost("temporal", table.rows[base]["gflops"] / 2)
    text = "half the operations, mAP50 above that of base less 1 point"
    return _curves(table, "base", "temporal"), [table.sum(text, half, {base: -1}, above=-1)]


def _stgt_loses_more(table: Written) -> Judged:
    found = [
        table.sum(
            f"r = {row['r']:.0f}, token-wise above STGT", {table.at("tokenwise", row["r"]): 1}, {place: -1}
        )
        for place, row in table.of("stgt").items()
    ]
    return _curves(table, "tokenwise", "stgt"), found


def _temporal_beats_tokenwise(table: Written) -> Judged:
    lowest = sorted(table.of("tokenwise").items(), key=lambda row: float(row[1]["r"]))[:3]
    found = [
        table.sum(
            f"{row['gflops']:.3f} GFlops, temporal above token-wise, r = {row['r']:.0f}",
            table.at_cost("temporal", row["gflops"]),
            {place: -1},
        )
        for place, row in lowest
    ]
    return _curves(table, "tokenwise", "temporal"), found


def _savings_add_up(table: Written) -> Judged:
    (base,), (spatial,) = table.of("base"), table.of("spatial")
    found = []
    for place, row in table.of("spatiotemporal").items():
        temporal = table.at("temporal", row["r"])
        alone, both = table.rows[temporal]["op_ratio"], row["op_ratio"]
        # Operations do not depend on the videos.
        found.append(Found(f"r = {row['r']:.0f}, op ratio {both:.2f} above {alone:.2f}", both - alone, 0))
        losses = {base: 1, temporal: -1, spatial: -1}
        text = f"r = {row['r']:.0f}, mAP50 above what both losses together leave, less 1 point"
        found.append(table.sum(text, {place: 1}, losses, above=-1))
    return _curves(table, "base", "spatial", "temporal", "spatiotemporal"), found


def _stgt_drifts(table: Written) -> Judged:
    parts = sorted(column for column in table.rows[0] if column.startswith("map50_part"))
    context = [f"{_named(row)}: {', '.join(f'{row[part]:.2f}' for part in parts)}" for row in table.rows]
    found = []
    for variant, sign, text in (("stgt", 1, "above 1"), ("tokenwise", -1, "below 1")):
        for row in table.of(variant).values():
            further, interval = row["falls_minus_base"], row["falls_minus_base_interval"]
            text_of_row = (
                f"{_named(row)}, {further:.2f} further behind base at the end, by which it is {text}"
            )
            found.append(Found(text_of_row, sign * (further - 1), interval))
    return ["mAP50 by part", *context], found


def _tuning_helps(table: Written) -> Judged:
    (base,) = table.of("base")
    found = [
        table.sum(
            f"r = {tuned:.0f}, fine-tuned above the middle of naive and base",
            {place: 1, naive: -0.5, base: -0.5},
        )
        for tuned, r, place, naive in _tuned(table)
        if tuned == r
    ]
    return _curves(table, "base", "temporal"), found


def _one_model_serves_a_range(table: Written) -> Judged:
    found = [
        table.sum(f"tuned at {tuned:.0f}, above naive at r = {r:.0f}", {place: 1, naive: -1})
        for tuned, r, place, naive in _tuned(table)
    ]
    return [], found


def _beats_skipping(variant: str, table: Written) -> Judged:
    found = [
        Found(
            f"{_named(row)}, op ratio {row['op_ratio']:.2f}, above skipping",
            row["minus_skip"],
            row["minus_skip_interval"],
        )
        for row in table.of(variant).values()
        if row["op_ratio"] >= 2 and not isnan(row["minus_skip"])
    ]
    if not found:
        raise LookupError(f"no {variant} at half the operations or less beside skip")
    return _curves(table, "base", "skip", variant), found


RIVALS = ("change", "similarity", "regions", "rollout")
"""Policies of `frame` that later work selects by; see `evt.eventful.selectors`."""


def _rivals_beat(variant: str, table: Written) -> Judged:
    found = [
        table.sum(
            f"{_named(row)}, op ratio {row['op_ratio']:.2f}, above {variant}",
            {place: 1},
            {other: -share for other, share in table.at_cost(variant, row["gflops"], "base").items()},
        )
        for place, row in table.of("frame").items()
        if row["policy"] in RIVALS
    ]
    if not found:
        raise LookupError(f"no frame with a policy of {', '.join(RIVALS)}")
    return _curves(table, "base", variant), found


JUDGES: dict[str, Callable[[Written], Judged]] = {
    "keeps_accuracy": _keeps_accuracy,
    "stgt_loses_more": _stgt_loses_more,
    "temporal_beats_tokenwise": _temporal_beats_tokenwise,
    "savings_add_up": _savings_add_up,
    "stgt_drifts": _stgt_drifts,
    "tuning_helps": _tuning_helps,
    "one_model_serves_a_range": _one_model_serves_a_range,
    "temporal_beats_skipping": partial(_beats_skipping, "temporal"),
    "rows_beats_skipping": partial(_beats_skipping, "rows"),
    "rivals_beat_temporal": partial(_rivals_beat, "temporal"),
    "rivals_beat_rows": partial(_rivals_beat, "rows"),
}


def _tuned(table: Written) -> Iterator[tuple[float, float, int, int]]:
    """For each row of a tuned model: what it was tuned for, r, its place, and that of the naive model's row."""
    rows = table.of("temporal")
    naive = {row["r"]: place for place, row in rows.items() if isnan(row["tuned_r"])}
    for place, row in rows.items():
        if not isnan(row["tuned_r"]):
            yield row["tuned_r"], row["r"], place, naive[row["r"]]


def _curves(table: Written, *variants: str) -> list[str]:
    """The rows of each variant in a line."""
    return [
        "; ".join(
            f"{_named(row)}: {accuracy(row):.2f} ±{row['interval']:.2f} at {row['op_ratio']:.2f}x"
            for row in table.of(variant).values()
        )
        for variant in variants
    ]


def _named(row: Mapping[str, Any]) -> str:
    """A row by its variant and setting."""
    settings = {name: row.get(name, nan) for name in ("tuned_r", "r", "keep", "every")}
    policy = [policy] if isinstance(policy := row.get("policy"), str) else []
    known = [f"{name} = {x:.0f}" for name, x in settings.items() if not isnan(x)]
    return " ".join([row["variant"], *policy, *known])


def read_claims(folder: Path) -> list[Claim]:
    """Hold every claim against the tables in a folder.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: a table is damaged, or is not what `python -m evt.reproduce` writes.
    """
    tables = {name: read(folder, name, **said) for name, said in SAID["tables"].items()}
    try:
        return judge(tables)
    except (LookupError, ValueError) as error:
        raise ValueError(
            f"{folder}: the tables lack rows that the claims are of ({error}); make reproduce-mini writes them"
        ) from error


def counted(claims: Sequence[Claim]) -> str:
    """How many claims there are of each verdict."""
    return ", ".join(f"{sum(claim.verdict == verdict for claim in claims)} {verdict}" for verdict in VERDICTS)


def write_claims(folder: Path) -> Path:
    """Write claims.md beside the tables in a folder.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: a table is damaged, or is not what `python -m evt.reproduce` writes.
    """
    path = folder / "claims.md"
    check_writable(path)
    claims = read_claims(folder)
    lines = [
        "# Claims on the generated benchmarks",
        "",
        f"Of {len(claims)} claims {counted(claims)} here. Small models on generated videos are not the paper's; a "
        "claim that fails here may hold there, and the other way round. Each is judged by differences on the same "
        "videos or clips, all of which it wants above 0. `±` is half of the 95% interval over resamples of these, "
        "the same for all rows; a difference whose interval has 0 in it decides nothing. Made by `python -m "
        f"evt.claims` from {', '.join(f'{name}.csv' for name in SAID['tables'])}, and the covariances beside them.",
    ]
    for claim in claims:
        lines += ["", f"## {claim.claim}", "", f"**{claim.verdict}.** {claim.rule}", ""]
        lines += [f"- {line}" for line in (*claim.found, *claim.context)]
    write(path, "\n".join(lines) + "\n")
    return path
