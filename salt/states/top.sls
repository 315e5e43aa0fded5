# By id: roles by grain could be taken by whoever tells that grain.
base:
  '*':
    - base
  {{ pillar['fleet']['master'] | json }}:
    # First: workers fetch K3s through it.
    - {{ 'egress' if pillar['platform']['network']['egress'] == 'master' else 'egress.absent' }}
    - k3s.server
    - platform
    - backup
    - heal
{%- if pillar['fleet']['workers'] %}
  {{ pillar['fleet']['workers'] | join(',') | json }}:
    - match: list
    - k3s.agent
{%- endif %}
