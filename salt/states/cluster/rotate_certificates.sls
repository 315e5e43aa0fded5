# On the master: salt-run state.orchestrate cluster.rotate_certificates
# K3s's certificates (not its authorities) are made anew, one node at a time. Interrupted, run it
# again. Without it they are prolonged, with the same keys, whenever K3s starts in their last days.
{%- set fleet = pillar['fleet'] %}
include:
  - cluster.alone
  - cluster.minions

rotation begins:
  stage.begin:
    - name: rotation
    - text: new certificates, one node at a time

certificates:
  cluster.certificates_rotated:
    - master: {{ fleet['master'] | json }}
    - workers: {{ fleet['workers'] | json }}
    - failhard: true

rotation ends:
  stage.end:
    - name: rotation
