"""The guide's code is run, page by page, in the repository's directory; what it writes goes elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "python").glob("*.md"))
NEEDS = {"1-verdicts": ("torch", "sklearn"), "3-compare": ("sklearn",), "5-from-elsewhere": ("torch", "pytorch_ood", "sklearn")}


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in NEEDS.get(page.stem, ()):
        pytest.importorskip(module)
    (tmp_path / "crates").symlink_to(ROOT / "crates")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)


def test_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells run; most unseen digits are flagged, few known ones."""
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = json.loads((ROOT / "docs/python/digits.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile(cell, "digits.ipynb", "exec"), names)
    assert names["new"].is_ood.mean() > 0.4 and names["seen"].is_ood.mean() < 0.12  # type: ignore[attr-defined]
