# By id: roles by grain could be taken by whoever tells that grain.
base:
  '*':
    - base
  {{ pillar['fleet']['master'] | json }}:
    - k3s.server
    - platform
    - heal
{%- if pillar['fleet']['workers'] %}
  {{ pillar['fleet']['workers'] | join(',') | json }}:
    - match: list
    - k3s.agent
{%- endif %}
