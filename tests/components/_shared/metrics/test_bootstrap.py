from __future__ import annotations

import numpy as np
import pytest

from penstock.components._shared.metrics import bootstrap
from penstock.components._shared.metrics.bootstrap import difference, interval, measure, resample
from penstock.components._shared.metrics.tasks import TASKS, Scored

REGRESSION, BINARY = TASKS["regression"], TASKS["binary"]


def errors(random: np.random.Generator, rows: int, scale: float = 1.0) -> Scored:
    """Rows whose bias is 0 and whose errors spread by `scale`."""
    actual = random.normal(size=rows)
    return Scored(actual, actual + random.normal(scale=scale, size=rows))


def classified(random: np.random.Generator, rows: int) -> Scored:
    labels = random.integers(0, 2, rows)
    score = 1 / (1 + np.exp(-random.normal(labels - 0.5, 1)))
    return Scored(labels, np.column_stack((1 - score, score)))


def test_interval_of_a_mean_has_the_width_that_theory_gives() -> None:
    measured, _ = measure(REGRESSION, errors(np.random.default_rng(0), 2000, scale=3), 2000, 0.95, [0])
    low, high = measured.intervals["bias"]
    assert high - low == pytest.approx(2 * 1.96 * 3 / np.sqrt(2000), rel=0.1)


def test_intervals_cover_the_true_value_as_often_as_they_promise() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for seed in range(150):
        measured, _ = measure(REGRESSION, errors(random, 100), 200, 0.9, [seed])
        low, high = measured.intervals["bias"]
        covered += low <= 0 <= high
    assert 0.82 <= covered / 150 <= 0.96  # three standard errors around 0.9, a little less for small samples


def test_a_bag_of_many_rows_gives_the_interval_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = classified(np.random.default_rng(2), 20_000)
    full, _ = measure(BINARY, scored, 400, 0.95, [0])
    monkeypatch.setattr(bootstrap, "BAG", 2000)
    bagged, _ = measure(BINARY, scored, 400, 0.95, [0])
    assert bagged.values == full.values
    for name, (low, high) in full.intervals.items():
        bagged_low, bagged_high = bagged.intervals[name]
        assert bagged_high - bagged_low == pytest.approx(high - low, rel=0.25), name
        if name != "ece":  # not linear: more rows in the bag, less noise
            assert bagged_low < full.values[name] < bagged_high


def test_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    scored = classified(np.random.default_rng(3), 200)
    first, again, other = (measure(BINARY, scored, 50, 0.95, seed)[0] for seed in ([1], [1], [2]))
    assert first == again
    assert first.intervals != other.intervals


def test_no_samples_give_no_intervals() -> None:
    measured, resampled = measure(BINARY, classified(np.random.default_rng(4), 50), 0, 0.95, [0])
    assert measured.intervals == {}
    assert resampled is None


def test_number_of_rows_has_no_interval() -> None:
    measured, _ = measure(BINARY, classified(np.random.default_rng(5), 50), 20, 0.95, [0])
    assert measured.values["rows"] == 50
    assert "rows" not in measured.intervals


def test_metric_that_most_resamples_lack_has_no_interval() -> None:
    labels = np.array([1] + [0] * 2)  # 70 % of the resamples hold the positive row, 67 % both classes
    scored = Scored(labels, np.column_stack((np.full(3, 0.6), np.full(3, 0.4))))
    assert "auc" in measure(BINARY, scored, 400, 0.95, [0])[0].intervals
    assert interval(np.array([0.5, np.nan, np.nan]), 0.0, 0.95) is None
    assert interval(np.array([np.nan, np.nan]), 0.0, 0.95) is None


def test_rows_that_do_not_exist_have_no_metrics_but_their_number() -> None:
    measured, _ = measure(BINARY, Scored(np.array([], int), np.empty((0, 2))), 20, 0.95, [0])
    assert measured.rows == 0
    assert measured.values == {"rows": 0.0}
    assert measured.undefined["auc"] == "there are no such rows"


def test_model_compared_with_itself_differs_by_nothing() -> None:
    scored = classified(np.random.default_rng(6), 100)
    one, two = (measure(BINARY, scored, 30, 0.95, [7]) for _ in range(2))
    assert difference(one, two, 0.95)["auc"] == (0.0, (0.0, 0.0))


def test_paired_difference_is_narrower_than_the_intervals_of_both() -> None:
    random = np.random.default_rng(7)
    better = classified(random, 1000)
    noisy = np.clip(better.predictions[:, 1] + random.normal(scale=0.05, size=1000), 0, 1)
    worse = Scored(better.labels, np.column_stack((1 - noisy, noisy)))
    one, two = (measure(BINARY, scored, 300, 0.95, [0]) for scored in (better, worse))
    apart, found = difference(one, two, 0.95)["auc"]
    assert apart == one[0].values["auc"] - two[0].values["auc"]
    assert found is not None
    low, high = one[0].intervals["auc"]
    assert found[1] - found[0] < 0.5 * (high - low)


def test_resampled_metric_is_that_of_the_rows_drawn() -> None:
    scored = classified(np.random.default_rng(8), 60)
    drawn = np.random.default_rng([9]).integers(0, 60, 60)
    expected = measure(BINARY, scored.take(drawn), 0, 0.95, [0])[0].values
    found = resample(BINARY, scored, 1, [9]).values
    assert {name: value[0] for name, value in found.items()} == pytest.approx({n: expected[n] for n in found})
