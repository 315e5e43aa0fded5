# K3s's certificates are made anew on every node. Runs on the operator's machine:
#   salt-run state.orchestrate orch.rotate_certificates
one at a time:
  road.alone:
    - name: orch.rotate_certificates

tree on the master:
  road.pushed:
    - require:
      - road: one at a time

certificates:
  road.orchestrated:
    - sls: cluster.rotate_certificates
    - require:
      - road: tree on the master
