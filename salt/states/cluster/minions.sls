# On the master: every minion of the fleet answers and has the modules of this tree.
{%- set minions = [pillar['fleet']['master']] + pillar['fleet']['workers'] %}
minions begin:
  stage.begin:
    - name: minions
    - text: {{ minions | length }} minions answer and have our modules

minions:
  fleet.ready:
    - minions: {{ minions | json }}
    - failhard: true

minions end:
  stage.end:
    - name: minions
