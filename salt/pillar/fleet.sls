# Who is who, by minion id, computed from the knobs; and who may read what from the mine.
# A grain can be forged by the minion that tells it, an id is bound to its accepted key.
{%- import_yaml 'platform.sls' as knobs %}
{%- import_yaml 'site.sls' as site %}
{%- import_yaml 'local.sls' as local %}
{%- set own = salt['slsutil.merge'](knobs, site or {}) %}
{%- set platform = salt['slsutil.merge'](own, local or {})['platform'] or {} %}
{%- set name = platform['name'] | default('f1') %}
{%- set count = (platform['workers'] | default({}, true))['count'] | default(0) | int(0) %}
{%- set master = name ~ '-master' %}
{%- set workers = [] %}
{%- for number in range(1, count + 1) %}
{%- do workers.append(name ~ '-worker-' ~ number) %}
{%- endfor %}
fleet:
  master: {{ master }}
  workers: {{ workers | json }}
{%- if opts['id'] == master %}
mine_functions:
  k3s_agent_token:
    - mine_function: k3s.agent_token
    # An empty list would be no restriction at all.
    - allow_tgt: {{ (workers or [master]) | join(',') | json }}
    - allow_tgt_type: list
{%- endif %}
