"""Statistics of parts, beside fits of all rows."""

import pickle
from pathlib import Path

import numpy as np
import pytest

import heat_ood as ho


def by_parts(spec: str, parts: list[ho.FeatureSet], head: ho.Head) -> tuple[ho.Detector, int]:
    """Round after round."""
    after = None
    while True:
        merged = ho.Statistics.of(spec, parts[0], head=head, after=after)
        for part in parts[1:]:
            merged += ho.Statistics.of(spec, part, head=head, after=after)
        if merged.complete:
            found = merged.finish()
            assert isinstance(found, ho.Detector)
            return found, merged.round
        with pytest.raises(ho.HeatError, match="another round"):
            merged.finish()
        after = merged


@pytest.mark.parametrize(("spec", "rounds"), [("gmm", 1), ("vim(principal_dim=4)", 2), ("knn(k=3)", 1), ("react", 2)])
def test_fits_of_parts(spec: str, rounds: int) -> None:
    rng = np.random.default_rng(0)
    label = np.arange(600) % 3
    # In single precision all bits of a quantile count: react takes the second round for the lowest.
    avg = (rng.normal(size=(600, 8)) + label[:, None]).astype(np.float32)
    head = ho.Head(rng.normal(size=(3, 8)), np.zeros(3))
    parts = [ho.FeatureSet(avg[a:b], label=label[a:b]) for a, b in [(0, 100), (100, 350), (350, 600)]]
    found, n = by_parts(spec, parts, head)
    assert n == rounds
    whole = ho.scorer(spec).fit(ho.FeatureSet(avg, label=label), head=head)
    test = rng.normal(size=(50, 8)).astype(np.float32)
    np.testing.assert_allclose(found.score(test), whole.score(test), rtol=1e-5, atol=1e-5)
    again, _ = by_parts(spec, parts, head)
    assert pickle.dumps(found) == pickle.dumps(again)


def test_values_files_and_what_is_wrong(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    parts = [ho.FeatureSet(rng.normal(size=(40, 5)), label=np.arange(40) % 2) for _ in range(2)]
    one, two = (ho.Statistics.of(["maha", ho.Mean()], part, classes=2) for part in parts)
    assert (one.rows, one.round, one.scorers) == (40, 1, ["maha", "mean"])
    one.save(tmp_path / "one.stats")
    for copy in (pickle.loads(pickle.dumps(one)), ho.Statistics.load(tmp_path / "one.stats")):
        assert copy.to_bytes() == one.to_bytes()
    both = one + two
    assert (both.rows, one.rows) == (80, 40)
    found = both.finish()
    assert isinstance(found, dict) and list(found) == ["maha", "mean"]
    assert one.merge(two) is one and one.rows == 80
    with pytest.raises(ho.HeatError, match="in both"):
        one.merge(two)
    with pytest.raises(ho.HeatError, match="number of classes"):
        ho.Statistics.of("gmm", parts[0])
    with pytest.raises(ho.HeatError, match="fit it on one machine"):
        ho.Statistics.of("cfood", parts[0], classes=2)
    with pytest.raises(ho.HeatError, match="statistics"):
        found["maha"].save(tmp_path / "maha")
        ho.Statistics.load(tmp_path / "maha")
    with pytest.raises(ho.HeatError):
        ho.Statistics.from_bytes(b"nothing")
