# On the master: salt-run state.orchestrate cluster.upgrade
# Where kubelets report another version than the lock: the server first, then one worker after the
# other. Runs before every highstate, which would change all machines at once.
{%- set fleet = pillar['fleet'] %}
{%- set knobs = pillar['platform'] %}
{%- set asked = pillar.get('upgrade', {}) %}
include:
  - cluster.alone
  - cluster.minions

upgrade:
  cluster.upgraded:
    - version: {{ pillar['versions']['k3s']['version'] | json }}
    - master: {{ fleet['master'] | json }}
    - workers: {{ fleet['workers'] | json }}
    # As a voter reaches it: through the ingress on the master.
    - app:
        url: https://{{ knobs['network']['master_ip'] }}/api/polls/canary/results
        host: {{ knobs['domain'] | json }}
    - drain: {{ knobs['upgrade']['drain'] | json }}
    - backup_required: {{ knobs['backup']['required'] | json }}
    - without_backup: {{ asked.get('without_backup', false) | json }}
    - failhard: true
