# Runs on the Salt master: salt-run state.orchestrate orch.cluster
# Each of these is an orchestration of its own; the first failure ends the walk (`failhard`).
# What leaves goes last: the cluster is sound by then, and k8s/ fits the workers that stay.
include:
  - cluster.alone
  - cluster.minions
  - cluster.settled
  - cluster.upgrade
  - cluster.highstate
  - cluster.shrink
