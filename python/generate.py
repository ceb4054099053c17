"""Write `heat_ood/scorer_classes.py` from the library's list of scorers and docs/methods.md.

`python -P python/generate.py` writes it, `--check` fails if it is not up to date. Needs the installed
package (-P: not the sources beside this file).
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

from heat_ood import _heat_ood

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "python" / "heat_ood" / "scorer_classes.py"

#: Types of settings whose default depends on the data, or is none.
TYPES = {
    "react": "float | None",
    "pca": "int | None",
    "layer": "str | None",
    "views": "str | None",
    "kmeans": "int | None",
    "k": "int | None",
    "shrinkage": "float | str",
    "percentile": "float | None",
    "principal_dim": "int | None",
    "dim": "int | None",
    "temperature": "float | None",
    "explained": "float | None",
    "components": "int | None",
    "gamma": "float | None",
    "o": "float | None",
    "sig_alpha": "float | None",
    "low": "float | None",
    "high": "float | None",
}


def class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def methods() -> dict[str, dict[str, str]]:
    """The table of docs/methods.md by scorer."""
    columns = ["name", "formula", "settings", "fit", "cost", "reference"]
    rows = {}
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        # Bars within cells are escaped.
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 6 and re.fullmatch(r"`\w+`", cells[0]):
            rows[cells[0].strip("`")] = dict(zip(columns, cells, strict=True))
    return rows


def plain(text: str) -> str:
    """Markdown's links as their words."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)


def type_of(key: str, default: object) -> str:
    if isinstance(default, bool):
        return "bool"
    if isinstance(default, float) and TYPES.get(key) == "int | None":
        return "float"
    if key in TYPES:
        return TYPES[key]
    if isinstance(default, int):
        return "int"
    if isinstance(default, float):
        return "float"
    if isinstance(default, str):
        return "str"
    return "bool | int | float | str | None"


def one(name: str, settings: dict[str, object], method: dict[str, str]) -> str:
    words = [f"`{name}`: {plain(method['formula'])}."]
    if method["settings"]:
        words.append(f"Settings: {plain(method['settings'])}.")
    words.append(f"Fit: {plain(method['fit'])}; cost of a row: {plain(method['cost'])}.")
    if method["reference"]:
        words.append(f"{plain(method['reference'])}.")
    filled = [textwrap.fill(w.replace("..", "."), 96, break_long_words=False, break_on_hyphens=False) for w in words]
    doc = textwrap.indent("\n\n".join(filled), "    ")
    ordered = sorted(settings.items(), key=lambda item: (item[0] in COMMON, item[0]))
    parameters = [f"        {key}: {type_of(key, value)} = {value!r}," for key, value in ordered]
    passed = ", ".join(f"{key}={key}" for key, _ in ordered)
    defaults = ", ".join(f'"{key}": {value!r}' for key, value in ordered)
    lines = [
        f"class {class_name(name)}(Scorer):",
        f'    """{doc.strip()}\n    """',
        "",
        f'    name = "{name}"',
        f"    defaults: ClassVar[dict[str, Setting]] = {{{defaults}}}",
        "",
    ]
    if parameters:
        lines += ["    def __init__(", "        self,", "        *,", *parameters, "    ) -> None:"]
        lines += [f"        super().__init__({passed})"]
    else:
        lines += ["    def __init__(self) -> None:", "        super().__init__()"]
    return "\n".join(lines)


#: Steps before the formula, which come last.
COMMON = ("layer", "pooling", "react", "normalize", "pca", "whiten", "views")


def generated() -> str:
    table = methods()
    scorers = json.loads(_heat_ood.scorer_list())
    missing = [name for name in scorers if name not in table]
    if missing:
        sys.exit(f"docs/methods.md lacks {', '.join(missing)}")
    names = [class_name(name) for name in scorers]
    head = '''"""Every scorer as a class. Written by python/generate.py from docs/methods.md: change that.

Features `z` have shape `[N, D]`, logits `[N, C]`; where rows are read and steps before the formula
(`layer`, `pooling`, `react`, `normalize`, `pca`, `whiten`, `views`) are explained there. A default of None depends on the number of classes
or means that the step is left out.
"""

from __future__ import annotations

from typing import ClassVar

from ._scorer import Scorer, Setting
'''
    listed = ",\n".join(f'    "{name}"' for name in names)
    body = "\n\n\n".join(one(name, settings, table[name]) for name, settings in scorers.items())
    return f"{head}\n__all__ = [\n{listed},\n]\n\n\n{body}\n"


if __name__ == "__main__":
    text = generated()
    if "--check" in sys.argv:
        if OUT.read_text(encoding="utf-8") != text:
            sys.exit(f"{OUT.relative_to(ROOT)} is not up to date: run python -P python/generate.py")
    else:
        OUT.write_text(text, encoding="utf-8")
