# A backup put back, into the running platform or a new one. Runs on the operator's machine:
#   salt-run state.orchestrate orch.restore pillar='{"restore": {"from": "<file or name>"}}'
# Without a name it is the newest that is known, here or in the bucket. Interrupted, run it again.
{%- set paths = pillar['platform']['backup']['paths'] %}
include:
  - orch.proof

restore begins:
  stage.begin:
    - name: restore
    - text: a backup, opened here, put back there

one at a time:
  road.alone:
    - name: orch.restore
    - require:
      - stage: restore begins

tree on the master:
  road.pushed:
    - require:
      - road: one at a time

backup on the master:
  backup_copy.handed_over:
    - source: {{ (pillar.get('restore', {}).get('from') or none) | json }}
    - roots: {{ (['/var/lib/rancher/k3s', '/etc/rancher'] + paths) | json }}
    - require:
      - road: tree on the master

# Whoever opens a backup holds the key: those to come are for it too.
backup key:
  backup_copy.keyed:
    - replace: true
    - require:
      - backup_copy: backup on the master

backup restored:
  road.orchestrated:
    - sls: cluster.restore
    - require:
      - backup_copy: backup key

restore ends:
  stage.end:
    - name: restore
    - require:
      - road: backup restored
    - require_in:
      - stage: proof begins
      - road: a vote is counted
