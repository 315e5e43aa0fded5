# The secret with which agents join becomes another one. Runs on the operator's machine:
#   salt-run state.orchestrate orch.rotate_token
one at a time:
  road.alone:
    - name: orch.rotate_token

tree on the master:
  road.pushed:
    - require:
      - road: one at a time

agent token:
  road.orchestrated:
    - sls: cluster.rotate_token
    - require:
      - road: tree on the master
