"""The lab: a cloud on this machine, and what the platform needs from one."""
