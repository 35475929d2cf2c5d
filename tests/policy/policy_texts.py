"""A document and a case for the tests of reading, checking, comparing and the command."""

from __future__ import annotations

import contextlib
import io
from subprocess import CompletedProcess
from typing import Any
from unittest import mock

import pytest

from infra.cli.main import main

SOUND = """\
area: "999900"
insurance: employee
version: "1"
title: 示例市职工医保
effective: {start: "2024-01-01"}
sources:
  text: {title: 示例通知, url: example.org, provenance: official}
benefits:
  inpatient:
    care_types: [inpatient]
    counts_stays: true
    stages:
      - deductible:
          due: each_stay
          rows:
            - {levels: [one, other, unrated], value: 400元, source: text, clause: 一级}
            - {levels: [two], value: 600元, source: text, clause: 二级}
            - {levels: [three], value: 900元, source: text, clause: 三级}
          adjust:
            - when: {stays: "2-"}
              rows: [{times: 50%, source: text, clause: 第二次起减半}]
      - fund:
          code: hifp_pay
          name: 统筹基金
          of: remaining
          ratio:
            - {persons: [retired], value: 90%, source: text, clause: 退休}
            - persons: [employed, self_employed, bankrupt_unit]
              value: 85%
              source: text
              clause: 在职
          adjust:
            - when: {classes: [referral, referral_named, emergency]}
              rows: [{minus: 10个百分点, source: text, clause: 转诊}]
            - when: {classes: [other_temporary]}
              rows: [{minus: 20个百分点, source: text, clause: 其他临时外出}]
          caps:
            - rows: [{value: 30万元, source: text, clause: 年度限额}]
"""
"""Without a finding."""


def changed(*replacements: tuple[str, str]) -> str:
    """`SOUND` with each text replaced once; a text that is not there is a mistake of the test."""
    text = SOUND
    for before, after in replacements:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def line_of(text: str, fragment: str) -> int:
    """The line, from 1, on which `fragment` stands, once."""
    numbers = [n for n, line in enumerate(text.splitlines(), 1) if fragment in line]
    assert len(numbers) == 1, fragment
    return numbers[0]


CASE: dict[str, Any] = {
    "area": "999900",
    "insurance": "employee",
    "person": {"class": "employed", "age": 40},
    "institution": {"grade": "three_a", "level": "three"},
    "route": "cross_province",
    "benefit_class": "referral",
    "care_type": "inpatient",
    "disease": "",
    "admitted": "2024-03-01",
    "discharged": "2024-03-09",
    "nth_admission": 2,
    "amounts_fen": {
        "total": 2_600_000,
        "full_self_pay": 60_000,
        "over_limit": 0,
        "first_self_pay": 50_000,
        "in_scope": 2_490_000,
    },
}
"""Half of 900元, then 75 % of the rest: 18,337.50元."""


def run(*arguments: str, columns: int = 100) -> CompletedProcess[str]:
    """The `yidi` command in this process, where no network runs."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict("os.environ", {"YIDI_HOME": "/nonexistent", "COLUMNS": str(columns)}),
        mock.patch("sys.argv", ["yidi", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        main()
    assert isinstance(stopped.value.code, int)
    return CompletedProcess(arguments, stopped.value.code, out.getvalue(), err.getvalue())
