# On the master: the highstate of all machines again and again, which repairs what drifted, with
# Kubernetes' objects; by a timer of systemd that calls salt/ext/runners/heal.py. `minutes: 0` is
# never.
{%- set minutes = pillar['platform']['heal']['minutes'] %}
{%- if not minutes %}
include:
  - heal.absent
{%- else %}

/etc/systemd/system/f1-heal.service:
  file.managed:
    - mode: '0644'
    - contents: |
        [Unit]
        Description=Repair what drifted from the F1-Vote tree
        After=salt-master.service

        [Service]
        Type=oneshot
        Environment=PYTHONWARNINGS=ignore
        ExecStart=/opt/salt/bin/salt-run --log-level=error heal.run
        TimeoutStartSec=1800

/etc/systemd/system/f1-heal.timer:
  file.managed:
    - mode: '0644'
    - contents: |
        [Unit]
        Description=Every {{ minutes }} minutes: repair what drifted from the F1-Vote tree

        [Timer]
        OnActiveSec={{ minutes }}min
        OnUnitInactiveSec={{ minutes }}min
        AccuracySec=30s

        [Install]
        WantedBy=timers.target

f1-heal.timer:
  service.running:
    - enable: true
    - require:
      - file: /etc/systemd/system/f1-heal.service
    - watch:
      - file: /etc/systemd/system/f1-heal.timer
{%- endif %}
