# On the master: salt-run state.orchestrate cluster.backup
# A sealed backup of everything, in /var/lib/f1/backup. Asks no minion: the timer f1-backup runs it
# even if there is none.
{%- set knobs = pillar['platform']['backup'] %}
include:
  - cluster.alone

backup begins:
  stage.begin:
    - name: backup
    - text: datastore, keys, votes

backup:
  backup.made:
    - platform: {{ pillar['platform']['name'] | json }}
    - master: {{ pillar['fleet']['master'] | json }}
    - keep: {{ knobs['keep'] }}
    - paths: {{ knobs['paths'] | json }}
    - failhard: true

backup ends:
  stage.end:
    - name: backup
