# On the master: the highstate on all machines at once. The server starts while the workers
# install, and they join when its token is in the mine; what k8s/ says is applied while they do.
{%- set minions = [pillar['fleet']['master']] + pillar['fleet']['workers'] %}
highstate begins:
  stage.begin:
    - name: highstate
    - text: K3s's server, its agents, and what k8s/ says

highstate:
  fleet.highstate:
    - minions: {{ minions | json }}
    - failhard: true

highstate ends:
  stage.end:
    - name: highstate
