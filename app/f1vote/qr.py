"""QR codes (ISO/IEC 18004) of addresses, black, as SVG."""

import io
from typing import Any

import segno


def svg(address: str, border: int, **look: Any) -> str:
    """
    Return the QR code of ``address`` with ``border`` modules of white around it. ``look`` is what
    segno's SVG writer takes <https://segno.readthedocs.io/en/stable/api.html>.
    """
    file = io.BytesIO()
    # At least 15 % of it may be lost: it may be printed small, and cut.
    segno.make(address, error="m", micro=False).save(
        file, kind="svg", border=border, dark="#000", svgclass=None, lineclass=None,
        xmldecl=False, nl=False, **look,
    )  # fmt: skip
    return file.getvalue().decode()
