# The reverse of `heal`: nothing repairs by itself. A run that is under way goes on to its end.
f1-heal.timer:
  service.dead:
    - enable: false
{%- for path in [
  '/etc/systemd/system/f1-heal.timer',
  '/etc/systemd/system/f1-heal.service',
  '/var/lib/f1/heal',
  '/var/lib/f1/metrics/heal.prom',
] %}

{{ path }}:
  file.absent:
    - require:
      - service: f1-heal.timer
{%- endfor %}
