"""What `plan` predicts holds together; times themselves are compared in `bench/`."""

from __future__ import annotations

import pytest

import heat_ood as ho

SMALL = {"measured_rows": 500}


def test_work_is_shared_out() -> None:
    one, four = (ho.plan(10**7, 64, 10, "gmm", workers=w, **SMALL) for w in (1, 4))
    assert one.total_traffic > 3.9 * four.total_traffic
    assert one.seconds["read"] == pytest.approx(4 * four.seconds["read"])
    assert one.seconds["start"] == 0.0 and four.seconds["start"] > 0.0
    assert four.total_seconds < sum(four.seconds.values()) and four.bottleneck in four.seconds
    assert "10,000,000 x 64, 10 classes, 4 workers" in str(four) and four.to_dict()["bottleneck"] == four.bottleneck


def test_what_a_bank_costs() -> None:
    small, large = (ho.plan(10**6, 64, 10, "knn", workers=2, train_rows=n, **SMALL) for n in (10_000, 1_000_000))
    assert large.memory["detector"] > 50 * small.memory["detector"] and large.memory["detector"] > 64 * 4e6
    assert large.seconds["compute"] > 10 * small.seconds["compute"]
    assert ho.plan(10**6, 64, 10, "knn", workers=2, job="fit", **SMALL).traffic["states"] > 64 * 4e6


def test_the_limit_is_named() -> None:
    slow = ho.plan(10**8, 256, 10, "gmm", workers=8, bandwidth=1e6, **SMALL)
    assert slow.bottleneck == "read" and "network" in slow.advice
    assert ho.plan(10**3, 256, 10, "gmm", workers=8, **SMALL).bottleneck == "start"


def test_it_leaves_threads_as_they_were() -> None:
    before = ho.get_num_threads()
    ho.plan(10**5, 32, 4, "msp", workers=2, cpus=1, **SMALL)
    assert ho.get_num_threads() == before


@pytest.mark.parametrize(
    ("given", "text"),
    [({"rows": 0}, "rows=0"), ({"workers": 0}, "workers=0"), ({"job": "train"}, "'score' or 'fit'"), ({"bandwidth": 0}, "bandwidth=0")],
)
def test_what_is_wrong_is_named(given: dict[str, object], text: str) -> None:
    arguments: dict[str, object] = {"rows": 10, "dim": 4, "classes": 2, "scorer": "gmm", **given}
    with pytest.raises(ho.errors.InputError, match=text):
        ho.plan(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ho.errors.UnknownNameError, match="gmmm"):
        ho.plan(10, 4, 2, "gmmm")
