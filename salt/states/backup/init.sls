# On K3s's server: a backup as often as the knob backup.every says (systemd.time(7)). A timer, not
# Salt's own schedule, which would end with its minion; one that was missed is made up for.
{%- set knobs = pillar['platform']['backup'] %}
/etc/systemd/system/f1-backup.service:
  file.managed:
    - mode: '0644'
    - contents: |
        [Unit]
        Description=Backup of the platform
        Wants=k3s.service
        After=k3s.service

        [Service]
        Type=oneshot
        TimeoutStartSec=30min
        Environment=PYTHONWARNINGS=ignore
        ExecStart=/opt/salt/bin/salt-run --log-level=error state.orchestrate cluster.backup \
          'pillar={"asked": {"what": "cluster.backup", "by": "f1-backup.timer"} }'

/etc/systemd/system/f1-backup.timer:
  file.managed:
    - mode: '0644'
    - contents: |
        [Unit]
        Description=Backup of the platform, {{ knobs['every'] }}

        [Timer]
        OnCalendar={{ knobs['every'] }}
        RandomizedDelaySec=10min
        Persistent=true

        [Install]
        WantedBy=timers.target

f1-backup.timer:
  service.running:
    - enable: true
    - watch:
      - file: /etc/systemd/system/f1-backup.timer
    - require:
      - file: /etc/systemd/system/f1-backup.service
