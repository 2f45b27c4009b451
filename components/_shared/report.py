"""Self-contained HTML reports: text, tables and plots in one file that needs no network and no script.

The same content gives the same bytes.
"""

from __future__ import annotations

import io
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# A container's root may be read-only; Matplotlib wants a folder for its font cache.
os.environ.setdefault("MPLCONFIGDIR", os.path.join(tempfile.gettempdir(), "penstock-matplotlib"))

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

COLORS = ("#2f6fb7", "#d1495b", "#5a8f3c", "#b07d2b", "#7a5ca8", "#3f8f8b")

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the reader's font
    "svg.hashsalt": "penstock",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": f"cycler('color', {list(COLORS)})",
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.constrained_layout.use": True,
}

_PAGE = jinja2.Environment(
    loader=jinja2.PackageLoader("penstock.components._shared", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
).get_template("report.html.j2")


class _StyledFigure(Figure):
    """A figure whose axes are made in the reports' style, whatever the style of the process around it."""

    def add_subplot(self, *args: Any, **kwargs: Any) -> Any:
        with matplotlib.rc_context(_STYLE):
            return super().add_subplot(*args, **kwargs)


def new_figure(width: float = 6, height: float = 3.5) -> Figure:
    """Return an empty Matplotlib figure in the reports' style; sizes in inches."""
    with matplotlib.rc_context(_STYLE):
        return _StyledFigure(figsize=(width, height))


class Report:
    """A page that is built from top to bottom and written once.

    Args:
        title: Heading of the page.
        subtitle: One line below it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._subtitle = subtitle
        self._blocks: list[dict[str, Any]] = []

    def heading(self, text: str) -> None:
        """Start a section."""
        self._blocks.append({"kind": "heading", "text": text})

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._blocks.append({"kind": "text", "text": text})

    def status(self, ok: bool, text: str) -> None:
        """Add a verdict that is seen first: green where `ok`, red where not."""
        self._blocks.append({"kind": "status", "ok": ok, "text": text})

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Add a list of names and values."""
        self._blocks.append({"kind": "facts", "facts": [(name, _shown(value)) for name, value in facts.items()]})

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> None:
        """Add a table; columns that hold only numbers are aligned to the right, None is shown as a dash."""
        numeric = [_is_numeric([row[i] for row in rows]) for i in range(len(columns))]
        cells = [[_shown(value) for value in row] for row in rows]
        self._blocks.append(
            {"kind": "table", "columns": columns, "rows": cells, "numeric": numeric, "caption": caption}
        )

    def figure(self, figure: Figure, caption: str = "") -> None:
        """Add a plot, as SVG."""
        drawn = io.StringIO()
        with matplotlib.rc_context(_STYLE):
            figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
        svg = drawn.getvalue()
        # Ids are unique in a file, not in a page of several plots.
        prefix = f"f{sum(block['kind'] == 'figure' for block in self._blocks)}-"
        svg = re.sub(r'((?:\bid="|url\(#|href="#))', rf"\g<1>{prefix}", svg[svg.index("<svg") :])
        self._blocks.append({"kind": "figure", "svg": Markup(svg), "caption": caption})  # noqa: S704 - Matplotlib escapes

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page to `path`, atomically."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(target.name + ".unfinished")
        page = _PAGE.render(title=self._title, subtitle=self._subtitle, blocks=self._blocks)
        unfinished.write_text(page, encoding="utf-8")
        unfinished.replace(target)


def _is_numeric(values: Sequence[Any]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return f"{value:,.0f}" if abs(value) >= 1e6 and value == int(value) else f"{value:,.4g}"
    return str(value)
