# The reverse of `k3s.server` and of `k3s.agent`: nothing of K3s is left on this machine.
{%- for name in ['k3s', 'k3s-agent'] %}
{{ name }}:
  service.dead:
    - enable: false

/etc/systemd/system/{{ name }}.service:
  file.absent:
    - require:
      - service: {{ name }}
    - require_in:
      - k3s: what K3s left
{%- endfor %}

what K3s left:
  k3s.absent: []

/usr/local/bin/k3s:
  file.absent:
    - require:
      - k3s: what K3s left
