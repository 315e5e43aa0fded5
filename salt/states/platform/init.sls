# What k8s/ says, with the values of the pillar, is what the cluster runs.
{%- from 'platform/map.jinja' import knobs, overlay with context %}
{%- from 'k3s/map.jinja' import k3s with context %}
include:
  - k3s.server

{%- set unknown = [] %}
{%- if not knobs['registry']['pull'] %}{% do unknown.append('platform.registry.pull') %}{% endif %}
{%- if not knobs['app']['digest'] %}{% do unknown.append('platform.app.digest') %}{% endif %}
{%- if unknown %}

the image of the vote is known:
  test.fail_without_changes:
    - comment: >-
        The pillar has no {{ unknown | join(' and no ') }}: `make up` pushes the image and writes
        down its digest; set platform.registry in salt/pillar/site.sls.
{%- else %}

# Not in the tree that the operator pushes: that one is replaced as a whole.
/var/lib/f1/render/kustomization.yaml:
  file.serialize:
    - serializer: yaml
    - makedirs: true
    - mode: '0644'
    - dataset: {{ overlay | json }}

k8s is applied:
  kube.applied:
    - name: /var/lib/f1/render
    - require:
      - k3s: k3s
      - file: /var/lib/f1/render/kustomization.yaml

# Its pods wait for it.
vote-secrets:
  kube.secret_present:
    - namespace: f1
    - keys: [cookie-key, admin-token, sign-key]
    - require:
      - kube: k8s is applied

# Only now: what is applied is scheduled as the workers come.
nodes are ready:
  kube.nodes_ready:
    - nodes: {{ k3s.labels | json }}
    - require:
      - k3s: k3s_agent_token
      - kube: vote-secrets

everything runs:
  kube.rolled_out:
    - name: /var/lib/f1/render
    - require:
      - kube: nodes are ready
{%- endif %}
