"""Synthetic taxi trips.

Standard library only, and of that only random() and arithmetic: the same rows and seed give the same bytes on every
platform and Python.
"""

from __future__ import annotations

import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from random import Random

COLUMNS = (
    "vendor_id", "pickup_datetime", "dropoff_datetime", "passenger_count", "trip_distance", "rate_code_id",
    "store_and_fwd_flag", "pickup_location_id", "dropoff_location_id", "payment_type", "fare_amount", "extra",
    "mta_tax", "tip_amount", "tolls_amount", "improvement_surcharge", "total_amount", "congestion_surcharge",
)  # fmt: skip

MONTHS = tuple((2018 + month // 12, month % 12 + 1) for month in range(15))
ROWS_A_MONTH = 500  # with fewer rows than this for each month, there are fewer months
SURCHARGE_RECORDED = (2019, 1)  # before, the column is empty
SURCHARGE_CHARGED = (2019, 2)

# Shares in percent, rounded from the city's published trips.
HOURS = (31, 21, 15, 11, 9, 10, 22, 37, 46, 46, 47, 50, 52, 52, 56, 54, 51, 57, 65, 62, 56, 55, 52, 43)
PASSENGERS = ((1, 71), (2, 14.5), (5, 4.4), (3, 4.2), (6, 2.7), (4, 2), (0, 1.2))
PAYMENTS = ((1, 70.2), (2, 29.1), (3, 0.5), (4, 0.2))
ZONES = (
    (237, 6.0), (236, 5.8), (161, 5.8), (162, 5.3), (186, 5.2), (230, 5.2), (48, 4.8), (170, 4.8), (234, 4.6),
    (142, 4.5), (163, 4.1), (79, 4.1), (239, 3.9), (164, 3.6), (107, 3.5), (141, 3.5), (68, 3.5), (100, 3.1),
    (249, 3.0), (229, 2.9), (263, 2.9), (238, 2.9), (140, 2.6), (90, 2.6), (231, 2.6), (113, 2.3), (264, 2.3),
    (43, 2.2), (246, 2.1), (114, 2.0), (148, 2.0), (233, 2.0), (137, 1.9), (262, 1.9), (143, 1.8), (144, 1.5),
    (158, 1.4), (151, 1.3), (13, 1.3), (50, 1.3), (87, 1.1), (211, 1.1), (75, 1.0), (125, 0.9), (261, 0.9),
    (166, 0.8), (74, 0.6), (88, 0.6), (7, 0.5), (33, 0.4), (138, 2.6), (132, 1.8),
)  # fmt: skip
LA_GUARDIA, KENNEDY = 138, 132

# Miles at shares of the trips.
MILES = ((0.0, 0.0), (0.01, 0.1), (0.05, 0.47), (0.25, 0.96), (0.5, 1.6), (0.75, 2.8), (0.92, 6.4), (0.98, 11), (1, 20))
MILES_LA_GUARDIA = ((0.0, 0.5), (0.05, 4.0), (0.25, 8.0), (0.5, 9.6), (0.75, 11.0), (1, 19.0))
MILES_KENNEDY = ((0.0, 1.0), (0.05, 8.0), (0.25, 15.5), (0.5, 17.6), (0.75, 19.2), (1, 27.0))


def write(output: Path, rows: int, seed: int = 0) -> list[Path]:
    """Write synthetic taxi trips with the columns and formats of New York's yellow cabs, one CSV file a month.

    No trip took place: only the shares and sizes resemble those that the city publishes, and whether a card trip is
    tipped above 20 % of its fare depends on hour, distance and zone, so that there is something to learn.

    Args:
        output: Folder to write to; made if need be.
        rows: Number of trips, spread evenly over up to 15 months from January 2018 to March 2019.
        seed: Of everything random.

    Returns:
        The files, in the order of the months.
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1, not {rows}")
    months = _months(rows)
    output = Path(output)
    unfinished = output.parent / f".{output.name}.{os.getpid()}.unfinished"
    unfinished.mkdir(parents=True)
    try:
        files = []
        for place, (year, month) in enumerate(months):
            trips = rows // len(months) + (place < rows % len(months))
            file = unfinished / f"trips_{year}-{month:02d}.csv"
            with file.open("w", encoding="ascii", newline="") as stream:
                stream.write(",".join(COLUMNS) + "\n")
                random = Random(seed * len(MONTHS) + MONTHS.index((year, month)))  # noqa: S311, not for secrets
                stream.writelines(_trips(year, month, trips, random))
            files.append(file.name)
        if output.is_dir():
            for name in files:
                (unfinished / name).replace(output / name)
        else:
            unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [output / name for name in files]


def _months(rows: int) -> Sequence[tuple[int, int]]:
    count = max(1, min(len(MONTHS), rows // ROWS_A_MONTH))
    last = len(MONTHS) - 1
    return [MONTHS[last - round(place * last / max(count - 1, 1))] for place in reversed(range(count))]


def _choice(weighted: Sequence[tuple[int, float]]) -> Callable[[float], int]:
    values = [value for value, _ in weighted]
    bounds = list(accumulate(weight for _, weight in weighted))
    return lambda share: values[min(bisect_right(bounds, share * bounds[-1]), len(values) - 1)]


def _at(curve: Sequence[tuple[float, float]], share: float) -> float:
    place = bisect_right(curve, (share,))
    (x0, y0), (x1, y1) = curve[place - 1], curve[place]
    return y0 + (y1 - y0) * (share - x0) / (x1 - x0)


_hour = _choice(tuple(enumerate(HOURS)))
_passengers = _choice(PASSENGERS)
_payment = _choice(PAYMENTS)
_zone = _choice(ZONES)


def _chance_of_big_tip(hour: int, miles: float, pickup: int, dropoff: int) -> float:
    chance = 0.72 - 0.03 * min(miles, 10.0)
    chance += 0.2 if 16 <= hour <= 22 else -0.25 if hour <= 5 else 0.0
    chance += (pickup * 37 % 101 - 50) * 0.008 + (dropoff * 53 % 97 - 48) * 0.004
    return min(max(chance, 0.03), 0.97)


def _trips(year: int, month: int, count: int, random: Random) -> Iterator[str]:
    draw = random.random
    first = datetime(year, month, 1)
    days = ((first + timedelta(days=31)).replace(day=1) - first).days
    recorded, charged = (year, month) >= SURCHARGE_RECORDED, (year, month) >= SURCHARGE_CHARGED
    for _ in range(count):
        hour = _hour(draw())
        day = first + timedelta(days=int(draw() * days))
        pickup_time = day + timedelta(hours=hour, seconds=int(draw() * 3600))
        pickup, dropoff = _zone(draw()), _zone(draw())
        at_kennedy = KENNEDY in (pickup, dropoff)
        curve = MILES_KENNEDY if at_kennedy else MILES_LA_GUARDIA if LA_GUARDIA in (pickup, dropoff) else MILES
        miles = round(_at(curve, draw()), 2)
        pace = (8.5 if 7 <= hour <= 18 else 6.0) / (1.0 + 0.11 * miles) + 0.8  # minutes a mile
        minutes = (0.6 + miles * pace) * (0.55 + 0.5 * draw() + 0.4 * draw())
        dropoff_time = pickup_time + timedelta(seconds=int(minutes * 60))

        flat = at_kennedy and miles > 12 and draw() < 0.75
        fare = 52.0 if flat else 2.5 + 0.5 * round(3.6 * miles + 0.55 * minutes)
        evening = day.weekday() < 5 and 16 <= hour < 20
        extra = 0.0 if flat else 1.0 if evening else 0.5 if hour >= 20 or hour < 6 else 0.0
        tolls = 5.76 if miles > 7 and draw() < 0.45 else 0.0
        congestion = (2.5 if draw() < 0.9 else 0.0) if charged else 0.0
        if charged:
            extra += 2.5 if draw() < 0.3 else 0.0
        fees = fare + extra + 0.5 + 0.3 + tolls + congestion
        payment = _payment(draw())
        tip = 0.0
        if payment == 1:
            if draw() < _chance_of_big_tip(hour, miles, pickup, dropoff):
                button = draw()
                tip = fees * (0.2 if button < 0.8 else 0.25 if button < 0.92 else 0.3)
            elif draw() < 0.75:
                tip = fare * (0.08 + 0.11 * draw())
        tip = round(tip, 2)

        yield (
            f"{1 if draw() < 0.41 else 2},{pickup_time},{dropoff_time},{_passengers(draw())},{miles},"
            f"{2 if flat else 1},{'Y' if draw() < 0.005 else 'N'},{pickup},{dropoff},{payment},{fare},{extra},0.5,"
            f"{tip},{tolls},0.3,{round(fees + tip, 2)},{congestion if recorded else ''}\n"
        )
