# The reverse of `backup`: no more backups are made. Those that were stay.
f1-backup.timer:
  service.dead:
    - enable: false
{%- for name in ['f1-backup.service', 'f1-backup.timer'] %}

/etc/systemd/system/{{ name }}:
  file.absent:
    - require:
      - service: f1-backup.timer
{%- endfor %}
