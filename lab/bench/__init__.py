"""Measurements of the platform in the lab, each beside what it is to be compared with."""

import sys
from pathlib import Path

# The measurements use parts of the app: its ballots, polls and store.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "app"))
