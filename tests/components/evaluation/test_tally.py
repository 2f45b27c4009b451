"""Tables of sums: of pieces together they are those of the whole, and nothing that TFMA asks for is lost in them."""

import numpy as np
import pytest

from penstock.components._shared.metrics.calibration import BINS
from penstock.components.evaluation import tally
from penstock.components.evaluation.curves import HISTOGRAM

ROWS = 5000


@pytest.fixture(scope="module")
def given() -> dict[str, np.ndarray]:
    some = np.random.default_rng(0)
    score = some.beta(0.5, 0.5, ROWS)
    # Where cells begin and end, too, and what rounding leaves beside 0 and 1.
    score[:8] = [0, 1, 0.5, np.nextafter(0.5, 0), 1 / 15, 0.3, -1e-17, 1 + 1e-12]
    return {"score": score, "true": some.random(ROWS) < score, "code": some.integers(0, 4, ROWS)}


def entries(given: dict[str, np.ndarray], rows: slice = slice(None)) -> dict[str, tally.Entries]:
    score = given["score"][rows]
    return {
        "model": tally.scores(score, given["true"][rows]),
        "errors": tally.errors(score * 1e6),
        "sums": tally.Entries(np.zeros(len(score), np.int64), [score, score**2]),
    }


def test_pieces_together_are_the_whole(given):
    whole = dict(tally.by_code(given["code"], entries(given)))
    pieces: dict[int, list[tally.Tally]] = {}
    for start in range(0, ROWS, 700):
        rows = slice(start, start + 700)
        for code, found in tally.by_code(given["code"][rows], entries(given, rows)):
            pieces.setdefault(code, []).append(found)
    assert sorted(whole) == sorted(pieces) == [0, 1, 2, 3]
    for code, tables in whole.items():
        # In whatever order, and by steps, as Beam does.
        first, *rest = reversed(pieces[code])
        summed = tally.together([first, tally.together(rest)])
        for name, table in tables.items():
            np.testing.assert_allclose(summed[name], table, rtol=1e-12)


def test_of_no_rows_there_are_no_tables(given):
    assert list(tally.by_code(given["code"][:0], entries(given, slice(0)))) == []
    assert tally.together([]) == {}


def test_the_tables_of_a_code_are_of_its_rows_alone(given):
    for code, tables in tally.by_code(given["code"], entries(given)):
        score = given["score"][given["code"] == code]
        assert tables["sums"].shape == (1, 4)
        np.testing.assert_allclose(tables["sums"][0], [0, len(score), score.sum(), (score**2).sum()])


@pytest.mark.parametrize("bins", [tally.TFMA_BUCKETS, BINS, HISTOGRAM, 2])
def test_weighted_scores_fall_into_the_bins_that_the_rows_fall_into(given, bins):
    ((_, tables),) = tally.by_code(np.zeros(ROWS), entries(given))
    true, says, rows = tally.pairs(tables["model"])
    assert rows.sum() == ROWS
    assert len(rows) < ROWS
    edges = np.array([k / bins for k in range(bins)])
    score = np.clip(given["score"], 0, 1)
    for label in (0, 1):
        wanted = np.searchsorted(edges, score[given["true"] == label], side="right") - 1
        found = np.searchsorted(edges, says[true == label], side="right") - 1
        counted = np.bincount(found, rows[true == label], bins)
        np.testing.assert_array_equal(counted, np.bincount(wanted, minlength=bins))
        summed = np.bincount(found, (rows * says)[true == label], bins)
        np.testing.assert_allclose(summed, np.bincount(wanted, score[given["true"] == label], bins), atol=1e-9)


def test_a_matrix_counts_rows_by_actual_and_predicted_class():
    actual, predicted = np.array([0, 2, 2, 1]), np.array([0, 1, 1, 1])
    ((_, tables),) = tally.by_code(np.zeros(4), {"matrix": tally.Entries(actual * 3 + predicted)})
    assert tally.matrix(tables["matrix"], 3).tolist() == [[1, 0, 0], [0, 1, 0], [0, 2, 0]]


@pytest.mark.parametrize(
    "errors",
    [
        [0.0],
        [0.0, 0.0, 5.0],
        [1.0, 2.0],
        [3e-300, 7.25, 1e300],
        [0.1] * 3 + [0.3] * 3,
        np.random.default_rng(3).lognormal(0, 5, 999),
        np.random.default_rng(4).lognormal(9, 1, 1000),
    ],
    ids=["zero", "zeros", "between", "far", "halves", "odd", "even"],
)
def test_the_median_of_errors_is_as_near_as_is_said(errors):
    ((_, tables),) = tally.by_code(np.zeros(len(errors)), {"errors": tally.errors(np.array(errors))})
    assert tally.median(tables["errors"]) == pytest.approx(np.median(errors), rel=2**-13, abs=0)
