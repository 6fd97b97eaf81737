"""Our results as rows of the paper's tables. A column without trials stays empty; nothing is filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pokevla.errors import DataError, UsageError
from pokevla.evaluation.comparing.folders import Evaluated
from pokevla.evaluation.comparing.matching import ContentKey, content_key
from pokevla.evaluation.paper_tables.differences import describe_differences
from pokevla.evaluation.paper_tables.paper import TOTAL, PaperRow, PaperTable, get_table, paper_tables
from pokevla.evaluation.statistics.groups import GroupResult, result_of
from pokevla.evaluation.trial_records import TrialRecord


@dataclass(frozen=True)
class OurRow:
    """One policy in one table: a result for each column of the table, None where a column has no trials."""

    policy: str
    cells: tuple[GroupResult | None, ...]
    counterpart: PaperRow | None  # the row of the paper that the policy is to reproduce


@dataclass(frozen=True)
class ResultTable:
    """A table of the paper with our rows, and in what our trials differ from those of the paper."""

    paper: PaperTable
    rows: tuple[OurRow, ...]
    differences: tuple[str, ...]


def result_tables(
    evaluated: Sequence[Evaluated], tables: Sequence[str] = (), counterparts: Mapping[str, str] | None = None
) -> list[ResultTable]:
    """Our results beside the paper's.

    Args:
        evaluated: policies of evaluations. Trials of one policy from several folders, such as one for each suite, are
            put together.
        tables: names of the tables; none: IV if there are trials without perturbation, V if there are perturbed ones,
        VI
            and VII if a policy is or is named in `counterparts` as one of their rows.
        counterparts: policy -> id of the row of the paper that it reproduces. A policy whose name is an id needs none.

    Raises:
        UsageError: no trials for any table, another simulator, an unknown table, policy or row.
        DataError: a policy has a trial twice.
    """
    for one in evaluated:
        if not str(one.settings.get("environment", "libero")).startswith("libero"):
            raise UsageError(
                f"{one.folder} was evaluated in {one.settings['environment']}.",
                "The tables of the paper are of LIBERO.",
            )
    records = _by_policy(evaluated)
    ids = {policy: (counterparts or {}).get(policy, policy) for policy in records}
    _refuse_unknown(counterparts or {}, list(records))
    chosen = [get_table(name) for name in tables] or _tables_for(records, ids)
    return [_table(table, records, ids, evaluated) for table in chosen]


def _by_policy(evaluated: Sequence[Evaluated]) -> dict[str, list[TrialRecord]]:
    records: dict[str, dict[ContentKey, TrialRecord]] = {}
    for one in evaluated:
        known = records.setdefault(one.policy, {})
        for record in one.records:
            key = content_key(record)
            if key in known:
                raise DataError(
                    f"Policy {one.policy} has task {record.task} of {record.suite} from initial state "
                    f"{record.init_state_index} twice, the second time in {one.folder}.",
                    "Name each evaluation once, and give different policies different names.",
                )
            known[key] = record
    return {policy: list(by_key.values()) for policy, by_key in records.items()}


def _refuse_unknown(counterparts: Mapping[str, str], policies: list[str]) -> None:
    known = {row.id for table in paper_tables().values() for row in table.rows}
    for policy, row_id in counterparts.items():
        if policy not in policies:
            raise UsageError(f"--as {policy}={row_id}: no such policy.", f"Policies: {', '.join(policies)}.")
        if row_id not in known:
            raise UsageError(f"--as {policy}={row_id}: no such row.", f"Rows: {', '.join(sorted(known))}.")


def _tables_for(records: Mapping[str, list[TrialRecord]], ids: Mapping[str, str]) -> list[PaperTable]:
    chosen = []
    for table in paper_tables().values():
        having = [policy for policy in records if _records_of(table, records[policy])]
        is_reproduced = any(table.row(ids[policy]) is not None for policy in having)
        if having and (table.name in ("IV", "V") or is_reproduced):
            chosen.append(table)
    if not chosen:
        raise UsageError(
            "None of the trials belongs into a table of the paper.", "The tables have LIBERO's four suites."
        )
    return chosen


def _records_of(table: PaperTable, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    suites, categories = set(table.suites.values()), set(table.perturbations.values())
    return [
        record
        for record in records
        if record.suite in suites
        and (record.perturbation in categories if table.perturbed else record.perturbation is None)
    ]


def _table(
    table: PaperTable, records: Mapping[str, list[TrialRecord]], ids: Mapping[str, str], evaluated: Sequence[Evaluated]
) -> ResultTable:
    rows, used = [], []
    for policy, all_records in records.items():
        of_table = _records_of(table, all_records)
        if of_table:
            rows.append(OurRow(policy, _cells(table, of_table), table.row(ids[policy])))
            used += of_table
    folders = [one for one in evaluated if _records_of(table, one.records)]
    return ResultTable(table, tuple(rows), tuple(describe_differences(table, used, folders)))


def _cells(table: PaperTable, records: Sequence[TrialRecord]) -> tuple[GroupResult | None, ...]:
    """A result for each column. The total needs every other column: a part of the trials has another total."""
    columns = {title: [r for r in records if r.suite == suite] for title, suite in table.suites.items()}
    columns |= {title: [r for r in records if r.perturbation == kind] for title, kind in table.perturbations.items()}
    cells = {title: _result(members) for title, members in columns.items()}
    cells[TOTAL] = None if None in cells.values() else _result(records)
    return tuple(cells[title] for title in table.columns)


def _result(records: Sequence[TrialRecord]) -> GroupResult | None:
    result = result_of(records)
    return result if result.trials else None
