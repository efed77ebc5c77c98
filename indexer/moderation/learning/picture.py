"""The precision-recall curve as a picture: SVG that needs no script, on light and on dark, for eyes and for readers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from indexer.moderation.learning.curves import Point
    from indexer.moderation.learning.estimates import Measured

_WIDTH, _HEIGHT = 640, 500
_LEFT, _TOP, _SIDE, _TALL = 64, 52, 552, 300
"""Where the plot begins, and how large it is."""
_TICKS = (0, 0.2, 0.4, 0.6, 0.8, 1)

_STYLE = """
  .paper { fill: #fff } .ink { fill: #1f2328 } .quiet { fill: #59636e } .grid { stroke: #d8dee4 }
  .rule { stroke: #59636e } .stroke-present { stroke: #b35900 } .stroke-head { stroke: #0758c9 }
  .fill-present { fill: #b35900 } .fill-head { fill: #0758c9 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } .ink { fill: #f0f6fc } .quiet { fill: #9da7b1 } .grid { stroke: #30363d }
    .rule { stroke: #9da7b1 } .stroke-present { stroke: #ffa657 } .stroke-head { stroke: #79b8ff }
    .fill-present { fill: #ffa657 } .fill-head { fill: #79b8ff }
  }
"""


@dataclass(frozen=True)
class Line:
    """A curve: `tone` is `present` or `head`."""

    tone: str
    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Mark:
    """A threshold on a curve."""

    name: str
    tone: str
    measured: Measured


def drawn(
    category: str, lines: Sequence[Line], marks: Sequence[Mark], base_rate: float, goal: float | None = None
) -> str:
    """The curves with their 95 % bands, thresholds, the base rate and the precision that is wanted, as SVG text."""
    marks = [mark for mark in marks if mark.measured.precision]
    title = f"Precision and recall of {category}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-labelledby="pr-title pr-desc" font-family="system-ui, sans-serif" font-size="13">',
        f'<title id="pr-title">{escape(title)}</title>',
        f'<desc id="pr-desc">{escape(_described(lines, marks, base_rate, goal))}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>',
        _text(_LEFT, 30, title, "ink", size=16, weight=600),
        *_axes(),
        *_level(base_rate, f"base rate {_percent(base_rate)}", "2 4", above=base_rate < 0.5, x=_LEFT + 6),
    ]
    if goal is not None:
        parts += _level(goal, f"wanted {_percent(goal)}", "8 4", above=goal < 0.5, x=_LEFT + _SIDE - 6, anchor="end")
    parts += [part for line in lines for part in _band(line)]
    parts += [part for line in lines for part in _curve(line)]
    parts += [part for mark in marks for part in _mark(mark)]
    parts += _legend(lines, marks)
    return "\n".join([*parts, "</svg>\n"])


def _axes() -> list[str]:
    parts = []
    for tick in _TICKS:
        x, y = _x(tick), _y(tick)
        parts.append(f'<path class="grid" d="M{x} {_TOP}V{_TOP + _TALL}M{_LEFT} {y}H{_LEFT + _SIDE}" fill="none"/>')
        parts.append(_text(x, _TOP + _TALL + 18, _percent(tick), "quiet", anchor="middle"))
        parts.append(_text(_LEFT - 8, y + 4, _percent(tick), "quiet", anchor="end"))
    parts.append(_text(_LEFT + _SIDE / 2, _TOP + _TALL + 38, "Recall", "ink", anchor="middle"))
    middle = _TOP + _TALL / 2
    parts.append(_text(18, middle, "Precision", "ink", anchor="middle", more=f' transform="rotate(-90 18 {middle})"'))
    return parts


def _level(share: float, name: str, dashes: str, *, above: bool, x: float, anchor: str = "start") -> list[str]:
    y = _y(share)
    return [
        f'<path class="rule" d="M{_LEFT} {y}H{_LEFT + _SIDE}" fill="none" stroke-dasharray="{dashes}"/>',
        _text(x, y - 5 if above else y + 15, name, "quiet", size=12, anchor=anchor),
    ]


def _band(line: Line) -> list[str]:
    if len(line.points) < 2:
        return []
    upper = [(_x(each.recall), _y(each.precision.high)) for each in line.points]
    lower = [(_x(each.recall), _y(each.precision.low)) for each in reversed(line.points)]
    return [f'<path class="fill-{line.tone}" fill-opacity="0.16" d="M{_path([*upper, *lower])}Z"/>']


def _curve(line: Line) -> list[str]:
    if len(line.points) < 2:
        return []
    path = _path([(_x(each.recall), _y(each.precision.value)) for each in line.points])
    # Told apart by their dashes as well: not everybody sees the colours.
    dashes = ' stroke-dasharray="7 3"' if line.tone == "present" else ""
    return [
        f'<path class="stroke-{line.tone}" d="M{path}" fill="none" stroke-width="2.2" stroke-linejoin="round"{dashes}/>'
    ]


def _mark(mark: Mark) -> list[str]:
    x, y = _x(mark.measured.recall.value), _y(mark.measured.precision.value) if mark.measured.precision else 0
    return [f"<g><title>{escape(_said(mark))}</title>{_symbol(mark, x, y)}</g>"]


def _symbol(mark: Mark, x: float, y: float) -> str:
    """Hollow for what is in force, full for what was chosen."""
    fill = "paper" if mark.name == "as it is" else f"fill-{mark.tone}"
    if mark.tone == "head":
        return f'<path class="{fill} stroke-head" stroke-width="2" d="M{x} {y - 7}l7 7l-7 7l-7 -7Z"/>'
    return f'<circle class="{fill} stroke-present" stroke-width="2" cx="{x}" cy="{y}" r="5.5"/>'


def _legend(lines: Sequence[Line], marks: Sequence[Mark]) -> list[str]:
    top = _TOP + _TALL + 66
    parts = []
    for column, line in enumerate(lines):
        x = _LEFT + 280 * column
        dashes = ' stroke-dasharray="7 3"' if line.tone == "present" else ""
        parts.append(f'<path class="stroke-{line.tone}" d="M{x} {top}h28" fill="none" stroke-width="2.2"{dashes}/>')
        parts.append(_text(x + 36, top + 4, f"{line.name} (band: 95 %)", "ink"))
    for row, mark in enumerate(marks):
        y = top + 22 * (row + 1)
        parts.append(_symbol(mark, _LEFT + 14, y))
        parts.append(_text(_LEFT + 36, y + 4, _said(mark), "ink"))
    return parts


def _said(mark: Mark) -> str:
    precision, recall = mark.measured.precision, mark.measured.recall
    if precision is None:
        return f"{mark.name}: nothing reaches it"
    within = f"{_percent(precision.low)} to {_percent(precision.high)}"
    return f"{mark.name}: precision {_percent(precision.value)} ({within}), recall {_percent(recall.value)}"


def _described(lines: Sequence[Line], marks: Sequence[Mark], base_rate: float, goal: float | None) -> str:
    said = [f"Curves of {' and '.join(line.name.lower() for line in lines)}."]
    said += [f"{_said(mark)}." for mark in marks]
    said.append(f"{_percent(base_rate)} of the collection is of the category.")
    if goal is not None:
        said.append(f"The precision wanted is {_percent(goal)}.")
    return " ".join(said)


def _text(
    x: float,
    y: float,
    text: str,
    tone: str,
    *,
    anchor: str = "start",
    size: int = 13,
    weight: int = 400,
    more: str = "",
) -> str:
    return (
        f'<text class="{tone}" x="{_round(x)}" y="{_round(y)}" text-anchor={quoteattr(anchor)} font-size="{size}" '
        f'font-weight="{weight}"{more}>{escape(text)}</text>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{x} {y}" for x, y in points)


def _x(recall: float) -> float:
    return _round(_LEFT + recall * _SIDE)


def _y(precision: float) -> float:
    return _round(_TOP + (1 - precision) * _TALL)


def _round(value: float) -> float:
    return round(float(value), 1)


def _percent(share: float) -> str:
    """In as few digits as tell it."""
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"
