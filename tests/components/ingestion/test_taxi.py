"""Sample trips: the same bytes everywhere, in the shape of the real ones."""

import csv
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.components.ingestion.samples.taxi import COLUMNS, write

SHA256_OF_1000_TRIPS = "8b7f8606f8fb01aa03830979c13c65827e07aed017d597c3f1dc31e54d6d529c"


def digest(files: list[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def trips(files: list[Path]) -> list[dict[str, str]]:
    return [row for file in files for row in csv.DictReader(file.open())]


def test_the_same_rows_and_seed_give_the_same_bytes_on_every_platform_and_python(tmp_path):
    assert digest(write(tmp_path / "a", 1000)) == SHA256_OF_1000_TRIPS
    assert digest(write(tmp_path / "b", 1000, seed=1)) != SHA256_OF_1000_TRIPS


def test_bytes_depend_on_neither_hash_seed_nor_time_zone(tmp_path):
    script = "import sys; from pathlib import Path; from penstock.components.ingestion.samples.taxi import write; "
    script += "write(Path(sys.argv[1]), 1000)"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", script, tmp_path / "c"], check=True, env=environment)
    assert digest(sorted((tmp_path / "c").iterdir())) == SHA256_OF_1000_TRIPS


@pytest.mark.parametrize(
    ("rows", "months"),
    [(1, ["2019-03"]), (999, ["2019-03"]), (1000, ["2018-01", "2019-03"]), (1500, ["2018-01", "2018-08", "2019-03"])],
)
def test_few_rows_make_few_files_that_still_span_the_months(tmp_path, rows, months):
    files = write(tmp_path / "trips", rows)
    assert [file.name for file in files] == [f"trips_{month}.csv" for month in months]
    assert sum(1 for _ in trips(files)) == rows


def test_the_columns_are_those_of_the_real_months(taxi_months):
    for file in taxi_months.glob("*.csv"):
        assert file.open().readline().rstrip("\r\n").split(",") == list(COLUMNS)


def test_the_congestion_surcharge_is_empty_before_2019_and_charged_from_february_2019(tmp_path):
    rows = trips(write(tmp_path / "trips", 7500))
    by_month: dict[str, set[str]] = {}
    for row in rows:
        by_month.setdefault(row["pickup_datetime"][:7], set()).add(row["congestion_surcharge"])
    assert len(by_month) == 15
    assert all(values == {""} for month, values in by_month.items() if month < "2019")
    assert by_month["2019-01"] == {"0.0"}
    assert by_month["2019-02"] == by_month["2019-03"] == {"0.0", "2.5"}


def test_only_card_trips_record_tips_and_evenings_tip_more_often_than_nights(tmp_path):
    rows = trips(write(tmp_path / "trips", 7500))
    assert {row["tip_amount"] for row in rows if row["payment_type"] != "1"} == {"0.0"}

    def share_of_big_tips(hours: range) -> float:
        big = [
            float(row["tip_amount"]) > 0.2 * float(row["fare_amount"])
            for row in rows
            if row["payment_type"] == "1" and int(row["pickup_datetime"][11:13]) in hours
        ]
        return sum(big) / len(big)

    assert share_of_big_tips(range(16, 23)) > share_of_big_tips(range(6)) + 0.2


def test_totals_are_the_sum_of_their_parts(tmp_path):
    parts = ("fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount", "improvement_surcharge")
    for row in trips(write(tmp_path / "trips", 1000)):
        total = sum(float(row[part]) for part in parts) + float(row["congestion_surcharge"] or 0)
        assert float(row["total_amount"]) == pytest.approx(total, abs=0.006)
        assert row["pickup_datetime"] < row["dropoff_datetime"] or row["trip_distance"] == "0.0"


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("penstock.components.ingestion.samples.taxi._trips", lambda *_: iter([1]))
    with pytest.raises(TypeError):
        write(tmp_path / "trips", 10)
    assert list(tmp_path.iterdir()) == []


def test_less_than_one_row_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        write(tmp_path / "trips", 0)
