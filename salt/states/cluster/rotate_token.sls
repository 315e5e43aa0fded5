# On the master: salt-run state.orchestrate cluster.rotate_token
# The agents' token becomes another one, and the old one is refused. Interrupted, run it again.
{%- set fleet = pillar['fleet'] %}
include:
  - cluster.alone
  - cluster.minions

rotation begins:
  stage.begin:
    - name: rotation
    - text: a new token for {{ fleet['workers'] | length }} agents, one at a time

agent token:
  cluster.token_rotated:
    - master: {{ fleet['master'] | json }}
    - workers: {{ fleet['workers'] | json }}
    - server: https://{{ pillar['platform']['network']['master_ip'] }}:6443
    - failhard: true

rotation ends:
  stage.end:
    - name: rotation
