"""`yidi settle` and `yidi quote`, and the same call with other clients."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.local.supervisor import Network

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "infra" / "local" / "samples"
OUTPATIENT = SAMPLES / "outpatient_beijing.json"


def altered(tmp_path: Path, name: str = "outpatient_jinan.json", **changes: Any) -> Path:
    """A copy of a sample visit with another request id and bill, and other values by path."""
    request = json.loads((SAMPLES / name).read_text("utf-8"))
    bill = request["bill"]
    request["requestId"] = f"test-{tmp_path.name}"
    bill["reference"]["visitId"] = tmp_path.name
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = request
        for parent in parents:
            target = target[int(parent)] if parent.isdecimal() else target[parent]
        target[last] = value
    file = tmp_path / "visit.json"
    file.write_text(json.dumps(request), encoding="utf-8")
    return file


@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.glob("*.json")))
def test_settle_twice_gives_the_stored_answer(yidi: Any, sample: str) -> None:
    institution = json.loads((SAMPLES / sample).read_text())["bill"]["reference"]["institution"]
    call = ("settle", "--file", str(SAMPLES / sample), "--as", f"institution/{institution}")
    first, again = yidi(*call, "--json"), yidi(*call, "--json")
    assert first.returncode == 0, first.stderr
    one, other = json.loads(first.stdout), json.loads(again.stdout)
    # The first answer may have been measured on the way, the second is read from the journal.
    one["result"].pop("hops", None), other["result"].pop("hops", None)
    assert one == other
    assert one["state"] == "SETTLEMENT_STATE_COMPLETED"
    shown = yidi(*call)
    assert "患者付" in shown.stdout
    assert one["settlementId"] in shown.stdout


def test_quote_then_settle_have_the_same_amounts(yidi: Any, tmp_path: Path) -> None:
    file = altered(tmp_path)
    quoted = yidi("quote", "--file", str(file), "--json")
    assert quoted.returncode == 0, quoted.stderr
    settled = yidi("settle", "--file", str(file), "--json")
    quote, settlement = json.loads(quoted.stdout)["result"], json.loads(settled.stdout)["result"]
    assert quote["amounts"] == settlement["amounts"]
    assert quote["quoteDigest"] == settlement["quoteDigest"]
    assert "outcomeHeader" not in quote


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        (b"{", "is not a SettleRequest in proto JSON"),
        (b'{"request": 1}', 'no field named "request"'),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_settle_says_what_is_wrong_with_the_file(
    yidi: Any, tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "visit.json"
    if content is not None:
        file.write_bytes(content)
    ran = yidi("settle", "--file", str(file))
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--as", "hospital"), "write institution/CODE"),
        (("--as", "institution/../x"), "write institution/CODE"),
        (("--site", "310000"), "no province of this network"),
    ],
)
def test_settle_says_what_is_wrong_with_an_option(
    yidi: Any, options: tuple[str, ...], said: str
) -> None:
    ran = yidi("settle", "--file", str(OUTPATIENT), *options)
    assert ran.returncode == 2
    assert said in ran.stderr


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bill__reference__institution": "H99999999999"}, "INSTITUTION_UNKNOWN"),
        ({"bill__visit__insuredArea": "310000"}, "AREA_UNKNOWN"),
        ({"bill__totalFen": "5"}, "TOTAL_MISMATCH"),
        ({"credential__number": "sample-nobody"}, "PERSON_NOT_IDENTIFIED"),
        ({"credential__number": "sample-zhanjiang-retired"}, "PERSON_NOT_IDENTIFIED"),
        ({"bill__visit__startDate": "2025-02-31"}, "DAY_INVALID"),
        ({"requestId": "sample-outpatient-jinan-1"}, "REQUEST_ID_REUSED"),
    ],
)
def test_settle_shows_refusals_with_the_next_step(
    yidi: Any, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    yidi("settle", "--file", str(SAMPLES / "outpatient_jinan.json"))
    ran = yidi("settle", "--file", str(altered(tmp_path, **changes)))
    assert ran.returncode == 1, ran.stdout
    assert ran.stdout == ""
    assert reason in ran.stderr
    assert "下一步" in ran.stderr


def test_settle_as_another_institution_is_refused(yidi: Any, tmp_path: Path) -> None:
    file = altered(tmp_path)
    ran = yidi("settle", "--file", str(file), "--as", "institution/H37010000002")
    assert ran.returncode == 1
    assert "FOREIGN_CODE" in ran.stderr


def test_settle_lists_every_violation_with_its_path(yidi: Any, tmp_path: Path) -> None:
    file = altered(
        tmp_path,
        requestId="short",
        bill__visit__endDate="20250520",
        bill__lines__1__lineId="",
        bill__lines__2__quantityE4="0",
    )
    ran = yidi("settle", "--file", str(file))
    assert ran.returncode == 1
    for path in (
        "request_id",
        "bill.visit.end_date",
        "bill.lines[1].line_id",
        "bill.lines[2].quantity_e4",
    ):
        assert path in ran.stderr
    assert "MESSAGE_INVALID" in ran.stderr


def test_buf_curl_settles_through_reflection(network: Network, yidi: Any) -> None:
    """The call of README.md: no stubs, the contract comes by reflection."""
    tls = network.plan.tls("110000")
    who = tls / "institution" / "H11010100001"
    ran = subprocess.run(
        [
            str(Path(sys.executable).with_name("buf")), "curl", "--protocol", "grpc",
            "--cacert", str(tls / "nation-ca.pem"), "--cert", f"{who}.pem", "--key", f"{who}.key",
            "--servername", "site-110000.yidi.internal", "--data", f"@{OUTPATIENT}",
            f"https://{network.plan.edges('110000', 'gateway')[0]}"
            "/yidi.gateway.v1.InstitutionService/Settle",
        ],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    settled = json.loads(yidi("settle", "--file", str(OUTPATIENT), "--json").stdout)
    assert answer["settlementId"] == settled["settlementId"]
    assert answer["result"]["amounts"] == settled["result"]["amounts"]


def test_python_of_the_readme_settles(network: Network, yidi: Any) -> None:
    """The Python of README.md runs as it stands there, but for the folder and the address."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    code = code.replace('".yidi/', f'"{network.home}/')
    code = code.replace("127.0.0.1:PORT", network.plan.edges("110000", "gateway")[0])
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    settled = json.loads(yidi("settle", "--file", str(OUTPATIENT), "--json").stdout)
    assert settled["result"]["amounts"]["cashFen"] in ran.stdout
