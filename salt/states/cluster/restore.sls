# On the master: salt-run state.orchestrate cluster.restore
# What the operator handed over is what the cluster and Redis hold. Interrupted, run it again.
{%- set fleet = pillar['fleet'] %}
{%- set knobs = pillar['platform']['backup'] %}
include:
  - cluster.alone
  - cluster.minions
  - cluster.highstate

backup is restored:
  backup.restored:
    - platform: {{ pillar['platform']['name'] | json }}
    - master: {{ fleet['master'] | json }}
    - workers: {{ fleet['workers'] | json }}
    - k3s: {{ pillar['versions']['k3s']['version'] | json }}
    - paths: {{ knobs['paths'] | json }}
    - failhard: true
    - require:
      - fleet: minions
    # Workers join and voters come only once it is compared.
    - require_in:
      - stage: highstate begins
      - fleet: highstate

restore ends:
  backup.ended:
    - require:
      - fleet: highstate
