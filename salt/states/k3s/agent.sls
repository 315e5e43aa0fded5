# K3s's agent: a worker, which joins with the token that the master's mine offers to it alone.
{%- from 'k3s/map.jinja' import k3s with context %}
{%- from 'k3s/unit.jinja' import unit %}
{%- import_yaml 'k3s/hardening.yaml' as hardening %}
include:
  - k3s.install

/etc/rancher/k3s/config.yaml:
  file.serialize:
    - serializer: yaml
    - mode: '0600'
    - dataset:
        node-name: {{ grains['id'] | json }}
        node-label: [f1.vote/role=worker]
        server: {{ k3s.server | json }}
        token-file: /etc/rancher/k3s/token
{%- for key, value in hardening['every node'].items() %}
        {{ key }}: {{ value | json }}
{%- endfor %}
    - require:
      - file: /etc/rancher/k3s

/etc/rancher/k3s/token:
  k3s.token_from_mine:
    - master: {{ k3s.master | json }}
    - server: {{ k3s.server | json }}
    - require:
      # Everything else is in place when the token comes.
      - artifact: /usr/local/bin/k3s
      - file: /etc/rancher/k3s/config.yaml

{{ unit('k3s-agent', 'agent', k3s.images_file) }}
    - watch:
      - artifact: /usr/local/bin/k3s
      - file: /etc/rancher/k3s/config.yaml
      - file: /etc/rancher/k3s/registries.yaml
      - file: /etc/systemd/system/k3s-agent.service
      - k3s: /etc/rancher/k3s/token

# When its certificates end, as a metric.
/var/lib/f1/metrics/k3s-certificates.prom:
  k3s.certificates_told:
    - require:
      - k3s: k3s-agent
