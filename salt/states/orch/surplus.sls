# Workers that left the cluster (orch.handover) are terminated: `platform.workers.count` was lowered.
surplus begins:
  stage.begin:
    - name: surplus
    - text: machines that are no longer wanted

surplus machines:
  cloud_machines.released: []

surplus ends:
  stage.end:
    - name: surplus
