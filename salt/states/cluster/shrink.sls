# On the master: salt-run state.orchestrate cluster.shrink
# Nothing is left of workers that are no longer of the fleet. Only then may their machines go:
# require `fleet: surplus workers`. The names of the cloud's machines make the report of orphans
# whole: pillar='{"machines": ["f1-master", …]}'
{%- set fleet = pillar['fleet'] %}
{%- set knobs = pillar['platform']['workers'] %}
{%- set machines = pillar.get('machines') %}
include:
  - cluster.alone

surplus workers:
  fleet.shrunk:
    - master: {{ fleet['master'] | json }}
    - workers: {{ fleet['workers'] | json }}
    - deadline: {{ knobs['drain_seconds'] }}
    - failhard: true

orphans:
  fleet.accounted:
    - master: {{ fleet['master'] | json }}
    - workers: {{ fleet['workers'] | json }}
    - machines: {{ (machines if machines is none else machines | list) | json }}
