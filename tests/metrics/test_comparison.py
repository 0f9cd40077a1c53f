"""Paired differences, Student's t and Holm's correction: known by hand, or by many draws."""

import numpy as np
import pytest
from scipy import stats

from xai_utils import metrics

NINE = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9])  # mean 5, variance 7.5


def test_students_t_by_hand():
    found = metrics.compare({"one": NINE - 3})["one"]
    error = np.sqrt(7.5 / 9)
    t = 2 / error
    assert found.difference == 2 and found.pictures == 9
    assert found.p == pytest.approx(2 * stats.t.sf(t, 8))
    assert found.p == pytest.approx(0.0599, abs=1e-4)  # t = 2.191 in a table of 8 degrees
    # 2.306 is Student's t for 95 % and 8 degrees of freedom in every table
    assert (found.low, found.high) == pytest.approx(
        (2 - 2.306 * error, 2 + 2.306 * error), abs=1e-3
    )


def test_holm_by_hand():
    corrected = metrics.holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(corrected, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(metrics.holm([0.6, np.nan, 0.02, 0.7]), [1, np.nan, 0.06, 1])
    assert metrics.holm([]).shape == (0,)


def test_words():
    noise = np.random.default_rng(0).normal(size=12)
    noise -= noise.mean()
    found = metrics.compare({"up": noise + 5, "down": noise - 5, "same": noise, "few": NINE[:7]})
    assert [found[name].verdict for name in found] == [
        "ahead of",
        "behind",
        "no difference can be told with 12 pictures",
        "no verdict: 7 pictures, 8 are the fewest",
    ]
    assert "1 picture," in metrics.compare({"one": [3.0]})["one"].verdict
    assert "0 pictures," in metrics.compare({"none": [np.nan]})["none"].verdict


def test_pictures_without_a_number_do_not_count():
    gaps = np.append(NINE, [np.nan, np.nan])
    assert metrics.compare({"one": gaps}) == metrics.compare({"one": NINE})
    few = metrics.compare({"one": NINE, "other": np.where(NINE > 7, np.nan, NINE)})
    assert few["other"].pictures == 7 and np.isnan(few["other"].p)
    assert few["one"].p == metrics.compare({"one": NINE})["one"].p  # the other does not count


def test_differences_that_are_all_the_same_are_counted_as_signs():
    found = metrics.compare({"hits": np.ones(8)})["hits"]
    assert found.p == pytest.approx(2 / 256) and (found.low, found.high) == (1, 1)
    assert metrics.compare({"hits": np.zeros(8)})["hits"].p == 1
    rounded = 0.1 + 1e-17 * np.arange(8)
    assert metrics.compare({"hits": rounded})["hits"].p == pytest.approx(2 / 256)


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_infinite_differences_are_refused(bad):
    with pytest.raises(ValueError, match="finite numbers or nan, but those of 'hits' hold inf"):
        metrics.compare({"fine": NINE, "hits": [*[-0.5] * 9, bad]})


def test_without_a_probability_nobody_is_ahead():
    found = metrics.compare({"one": NINE})["one"]
    assert found.verdict == "ahead of"
    assert found._replace(p=np.nan).verdict == "no difference can be told with 9 pictures"


def test_one_comparison_of_nothing_has_a_uniform_p():
    draws = np.random.default_rng(1).normal(size=(2000, 10))
    values = [metrics.compare({0: one})[0].p for one in draws]
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_many_comparisons_of_nothing_are_wrong_together_in_one_of_twenty():
    """Ten techniques that know as little as each of three floors: 30 comparisons a call."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(200):
        values, floors = rng.normal(size=(10, 12)), rng.normal(size=(3, 12))
        pairs = {(i, j): values[i] - floors[j] for i in range(10) for j in range(3)}
        wrong += any(found.p <= metrics.CHANCE for found in metrics.compare(pairs).values())
    assert wrong <= 20  # 10 are expected, 20 or fewer in 999 of 1000 such tests


def test_a_planted_difference_is_found_and_nothing_else():
    rng = np.random.default_rng(3)
    pictures = rng.normal(scale=5, size=20)  # pictures differ more than techniques do
    techniques = {name: pictures + rng.normal(size=20) for name in "abcdef"}
    techniques["planted"] = pictures + rng.normal(size=20) + 2
    control = pictures + rng.normal(size=20)
    found = metrics.compare({name: values - control for name, values in techniques.items()})
    assert [name for name in found if found[name].verdict == "ahead of"] == ["planted"]
    assert found["planted"].low < 2 < found["planted"].high
    unpaired = stats.ttest_ind(techniques["planted"], control).pvalue
    assert unpaired > metrics.CHANCE  # as if the pictures were others
