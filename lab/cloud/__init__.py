"""The lab's cloud: the EC2, Route 53 and S3 API of moto with real machines, a real network
and real security groups behind it. It knows nothing of what runs on its machines.

    from lab import cloud
    problems = cloud.preflight(config)      # [] = may start
    cloud.start(config)                     # idempotent
    cloud.status()["machines"]
    cloud.down()                            # removes everything it made
"""

from lab.cloud.checks import preflight
from lab.cloud.config import Config, ConfigError, Image, Process, Publish
from lab.cloud.lifecycle import LabError, down, outside, start, status, stop

__all__ = [
    "Config",
    "ConfigError",
    "Image",
    "LabError",
    "Process",
    "Publish",
    "down",
    "outside",
    "preflight",
    "start",
    "status",
    "stop",
]
