# On a worker, a part of cluster.rotate_token: the token of the mine, and a restart.
{%- from 'k3s/map.jinja' import k3s with context %}
/etc/rancher/k3s/token:
  k3s.token_from_mine:
    - master: {{ k3s.master | json }}
    - server: {{ k3s.server | json }}

k3s-agent:
  k3s.current:
    - files: [/etc/rancher/k3s/token]
    - require:
      - k3s: /etc/rancher/k3s/token
