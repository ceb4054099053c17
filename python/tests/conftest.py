"""Features that lie in the repository: CIFAR-10 by a DenseNet, as the quickstart has them."""

from __future__ import annotations

from pathlib import Path

import pytest

import heat_ood as ho

DATA = Path(__file__).resolve().parents[2] / "crates" / "heat-cli" / "data" / "cifar10-densenet"


@pytest.fixture(scope="session")
def data() -> Path:
    return DATA


@pytest.fixture(scope="session")
def train() -> ho.FeatureSet:
    return ho.FeatureSet.open(DATA / "train.safetensors", head=DATA / "head.safetensors")


@pytest.fixture(scope="session")
def test_set() -> ho.FeatureSet:
    return ho.FeatureSet.open(DATA / "test.safetensors")


@pytest.fixture(scope="session")
def ood() -> ho.FeatureSet:
    return ho.FeatureSet.open(DATA / "ood_mnist.safetensors")
