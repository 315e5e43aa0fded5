# A backup of now, on the master, here and in the bucket. Runs on the operator's machine:
#   salt-run state.orchestrate orch.backup
include:
  - orch.backup_key

one at a time:
  road.alone:
    - name: orch.backup

tree on the master:
  road.pushed:
    - require:
      - road: one at a time
    - require_in:
      - backup_copy: backup key

backup:
  road.orchestrated:
    - sls: cluster.backup
    - require:
      - backup_copy: backup key

copies:
  backup_copy.fetched:
    - keep: {{ pillar['platform']['backup']['keep'] }}
    - require:
      - road: backup
