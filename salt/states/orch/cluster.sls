# Runs on the Salt master: salt-run state.orchestrate orch.cluster
# One highstate, on all machines at once: the server starts while the workers install, and they
# join when its token is in the mine; what k8s/ says is applied while they do.
{%- set fleet = pillar['fleet'] %}
{%- set minions = [fleet['master']] + fleet['workers'] %}
minions begin:
  stage.begin:
    - name: minions
    - text: {{ minions | length }} minions answer and have our modules

minions:
  fleet.ready:
    - minions: {{ minions | json }}

minions end:
  stage.end:
    - name: minions
    - require:
      - fleet: minions

highstate begins:
  stage.begin:
    - name: highstate
    - text: K3s's server, its agents, and what k8s/ says
    - require:
      - stage: minions end

highstate:
  fleet.highstate:
    - minions: {{ minions | json }}
    - require:
      - stage: highstate begins

highstate ends:
  stage.end:
    - name: highstate
    - require:
      - fleet: highstate
