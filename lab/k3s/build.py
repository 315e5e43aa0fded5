"""What was fixed when this k3s was packed."""

import json
import pkgutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Build:
    """``version`` as ``v1.36.3+k3s1``; ``content`` names the packed code; see `pack`."""

    version: str
    content: str
    components: Path

    @property
    def kubernetes(self) -> str:
        """The version of Kubernetes itself."""
        return self.version.partition("+")[0]


def load() -> Build:
    """Read what ``pack`` wrote.

    Raises:
        FileNotFoundError: this is no packed k3s.
    """
    data = pkgutil.get_data(__package__, "build.json")
    if data is None:
        raise FileNotFoundError("build.json")
    values = json.loads(data)
    return Build(values["version"], values["content"], Path(values["components"]))
