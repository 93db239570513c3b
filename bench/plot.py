"""The plot of cost over live keys, from the figures of bench.ledger.

python -m bench --full --json figures.json ledger
python -m bench.plot figures.json docs/growth.svg
"""

import json
import math
import sys
from pathlib import Path

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 44, 74, 56
SERIES = {"Redis CPU µs": ("redis", "Redis"), "our CPU µs": ("ours", "its client")}
TITLE = "With jemalloc one charge costs the same among a million live keys"
SUBTITLE = "CPU µs of one charge of three limits, 64 in flight, over live keys in Redis"
STYLE = """\
  svg { background: #fff; font: 13px system-ui, sans-serif; color: #1c2330 }
  text { fill: currentColor } .soft { opacity: .65 } .title { font-size: 17px; font-weight: 600 }
  .grid { stroke: currentColor; opacity: .14 } path { fill: none; stroke-width: 2.5 }
  .redis { stroke: #b4432f; fill: #b4432f } .ours { stroke: #2563a8; fill: #2563a8 }
  path.redis, path.ours { fill: none } text.redis, text.ours { stroke: none; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    svg { background: #14181f; color: #e3e7ee }
    .redis { stroke: #f08a72; fill: #f08a72 } .ours { stroke: #7db4f0; fill: #7db4f0 }
  }
"""


def main(figures: Path, target: Path) -> None:
    points: dict[str, list[tuple[int, float]]] = {figure: [] for figure in SERIES}
    for each in json.loads(figures.read_text()):
        if "live keys" in each["bench"] and each["figure"] in points:
            points[each["figure"]].append((int(each["case"].split()[0]), each["value"]))
    target.write_text(svg(points))


def svg(points: dict[str, list[tuple[int, float]]]) -> str:
    keys = sorted({key for series in points.values() for key, _ in series})
    top = max(value for series in points.values() for _, value in series)
    top = math.ceil(top * 1.15 / 10) * 10

    def x(key: int) -> float:
        span = math.log10(keys[-1]) or 1
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log10(key) / span

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    lines = [
        f'<text class="title" x="{LEFT}" y="28">{TITLE}</text>',
        f'<text class="soft" x="{LEFT}" y="50">{SUBTITLE}</text>',
    ]
    for step in range(0, top + 1, 10):
        at = y(step)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        lines.append(
            f'<text class="soft" x="{LEFT - 10}" y="{at + 4}" text-anchor="end">{step}</text>'
        )
    lines += (
        f'<text class="soft" x="{x(key):.0f}" y="{HEIGHT - BOTTOM + 24}"'
        f' text-anchor="middle">{key:,}</text>'
        for key in keys
    )
    lines.append(
        f'<text class="soft" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}"'
        ' text-anchor="middle">live keys</text>'
    )
    for figure, (kind, name) in SERIES.items():
        series = sorted(points[figure])
        path = " ".join(
            f"{'L' if n else 'M'}{x(key):.1f} {y(value):.1f}"
            for n, (key, value) in enumerate(series)
        )
        lines.append(f'<path class="{kind}" d="{path}"/>')
        lines += (
            f'<circle class="{kind}" cx="{x(key):.1f}" cy="{y(value):.1f}" r="4"/>'
            for key, value in series
        )
        key, value = series[-1]
        lines.append(
            f'<text class="{kind}" x="{x(key):.0f}" y="{y(value) - 12:.0f}" text-anchor="end">'
            f"{name}: {value:.0f} µs</text>"
        )
    body = "\n".join(f"  {line}" for line in lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="CPU of one decision over live keys">\n<style>\n{STYLE}</style>\n{body}\n'
        "</svg>\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
