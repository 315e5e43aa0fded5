"""Packs the stand-in into the one executable file that machines install."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

SHEBANG = b"#!/usr/bin/python3\n"
MAIN = "import sys\n\nfrom k3s.cli import main\n\nsys.exit(main(sys.argv[1:]))\n"
NOT_PACKED = {"pack.py"}
TIME = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold


def _sources() -> dict[str, bytes]:
    here = Path(__file__).parent
    paths = [*here.glob("*.py"), *here.glob("manifests/*.yaml")]
    return {
        f"k3s/{path.relative_to(here)}": path.read_bytes()
        for path in sorted(paths)
        if path.name not in NOT_PACKED
    }


def pack(version: str, components: Path | str) -> bytes:
    """Make the ``k3s`` file.

    The same input gives the same bytes, on any machine: no time, no compression.

    Args:
        version: as K3s spells it, such as ``v1.36.3+k3s1``; Kubernetes' own is derived from it.
        components: folder on the machines that holds the Kubernetes programs.

    Returns:
        A zip application with a shebang, to be installed with mode 0755.
    """
    files = {"__main__.py": MAIN.encode(), **_sources()}
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name} {len(data)}\n".encode() + data)
    build = {
        "version": version,
        "content": digest.hexdigest()[:8],
        "components": str(components),
    }
    files["k3s/build.json"] = json.dumps(build, indent=1).encode()
    out = io.BytesIO()
    out.write(SHEBANG)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return out.getvalue()
