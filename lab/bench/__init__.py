"""Measurements of the platform in the lab, each beside what it is to be compared with."""
