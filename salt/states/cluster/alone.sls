# On the master, before anything else of an orchestration: no other one is under way here, whoever
# asked for it, from wherever. What a timer runs is waited for. Held until this one ends.
{%- set asked = pillar.get('asked', {}) %}
one at a time on the master:
  road.alone:
    - name: {{ asked.get('what', 'an orchestration') | json }}
    - path: /var/lib/f1/lock
    - who: {{ asked.get('by') | json }}
    - failhard: true
