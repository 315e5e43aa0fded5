"""QR codes as segno draws them into an SVG, read back."""

import re

import segno

Modules = set[tuple[int, int]]  # (column, line) of the dark ones, without the border


def drawn(svg: str, border: int) -> Modules:
    """Return the modules in ``svg``: strokes one module wide, line by line."""
    match = re.search(r'<path (?:transform="scale\(\d+\)" )?stroke="#000" d="([^"]+)"', svg)
    assert match, svg[:300]
    found, x, y = set(), 0.0, 0.0
    for command, numbers in re.findall(r"([Mmh])([-\d. ]+)", match[1]):
        values = [float(number) for number in re.findall(r"-?[\d.]+", numbers)]
        if command == "h":
            found |= {(int(x) + i - border, int(y - 0.5) - border) for i in range(int(values[0]))}
            x += values[0]
        else:
            x, y = (values[0], values[1]) if command == "M" else (x + values[0], y + values[1])
    return found


def wanted(text: str) -> Modules:
    """Return the modules of the QR code of ``text``, of which at least 15 % may be lost."""
    code = segno.make(text, error="m", micro=False)
    return {(x, y) for y, row in enumerate(code.matrix) for x, bit in enumerate(row) if bit}
