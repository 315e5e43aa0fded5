"""A stand-in for the ``k3s`` command: K3s's own contract, upstream Kubernetes beneath.

Runs on a lab machine with Debian 12's Python and PyYAML, packed into one file by ``pack``.
What is the same as K3s and what is not: docs/decisions/0002-k3s-stand-in.md.
"""
