# K3s's server: the control plane, on the machine that also carries the Salt master.
{%- from 'k3s/map.jinja' import k3s with context %}
{%- from 'k3s/unit.jinja' import unit %}
{%- import_yaml 'k3s/hardening.yaml' as hardening %}
include:
  - k3s.install

/etc/rancher/k3s/agent-token:
  k3s.secret_present:
    - require:
      - file: /etc/rancher/k3s

# As K3s would make them itself: what it holds is for root alone.
/var/lib/rancher/k3s/server:
  file.directory:
    - mode: '0700'
    - makedirs: true
{%- for name in ['db', 'logs', 'manifests'] %}

/var/lib/rancher/k3s/server/{{ name }}:
  file.directory:
    - mode: '0700'
    - require:
      - file: /var/lib/rancher/k3s/server
{%- endfor %}
{%- for name in ['audit.yaml', 'psa.yaml'] %}

/var/lib/rancher/k3s/server/{{ name }}:
  file.managed:
    - source: salt://k3s/files/{{ name }}
    - mode: '0600'
    - require:
      - file: /var/lib/rancher/k3s/server
{%- endfor %}

# K3s applies what lies there, now and at each start.
/var/lib/rancher/k3s/server/manifests/f1-accounts.yaml:
  file.managed:
    - source: salt://k3s/files/accounts.yaml
    - mode: '0600'
    - require:
      - file: /var/lib/rancher/k3s/server/manifests
    - require_in:
      - k3s: k3s

/etc/rancher/k3s/config.yaml:
  file.serialize:
    - serializer: yaml
    - mode: '0600'
    - dataset:
        node-name: {{ grains['id'] | json }}
        node-ip: {{ k3s.master_ip | json }}
        node-label: [f1.vote/role=server]
        tls-san: [{{ k3s.master_ip | json }}]
        write-kubeconfig-mode: '600'
        agent-token-file: /etc/rancher/k3s/agent-token
        # The ingress is our own, the same in every cloud (k8s/ingress).
        disable: [traefik, servicelb, metrics-server]
{%- for key, value in (hardening['every node'].items() | list) + (hardening['server'].items() | list) %}
        {{ key }}: {{ value | json }}
{%- endfor %}
    - require:
      - file: /etc/rancher/k3s
      - file: /var/lib/rancher/k3s/server/db
      - file: /var/lib/rancher/k3s/server/logs

{{ unit('k3s', 'server', k3s.images_file) }}
    - watch:
      - artifact: /usr/local/bin/k3s
      - file: /etc/rancher/k3s/config.yaml
      - file: /etc/rancher/k3s/registries.yaml
      - file: /etc/systemd/system/k3s.service
      - k3s: /etc/rancher/k3s/agent-token
      - file: /var/lib/rancher/k3s/server/audit.yaml
      - file: /var/lib/rancher/k3s/server/psa.yaml

# Before the workers hear of the token: a new machine joins under the name of the old one only
# once that node is gone.
nodes without a machine:
  kube.nodes_pruned:
    - nodes: {{ k3s.labels.keys() | list | json }}
    - machines: {{ pillar.get('machines', {}) | json }}
    - require:
      - k3s: k3s

k3s_agent_token:
  k3s.token_offered:
    - require:
      - kube: nodes without a machine

# When its certificates end, as a metric.
/var/lib/f1/metrics/k3s-certificates.prom:
  k3s.certificates_told:
    - require:
      - k3s: k3s
