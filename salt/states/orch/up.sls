# From nothing, or from anything, to a counted vote. Runs on the operator's machine:
#   salt-run state.orchestrate orch.up
# Stages follow each other in this order; the first failure ends the walk (`failhard`).
include:
  - orch.check
  - orch.network
  - orch.artifacts
  - orch.machines
  - orch.handover
  - orch.backup_key
  - orch.surplus
  - orch.proof
