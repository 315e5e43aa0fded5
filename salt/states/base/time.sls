# The right time: certificates, tokens and votes lean on it. AWS's own server, which every machine
# there reaches without any way out, comes first; elsewhere nothing answers at that address, and
# the next is asked.
include:
  - base.packages

/etc/systemd/timesyncd.conf.d/60-f1.conf:
  file.managed:
    - mode: '0644'
    - makedirs: true
    - contents: |
        [Time]
        NTP=169.254.169.123 0.debian.pool.ntp.org 1.debian.pool.ntp.org 2.debian.pool.ntp.org

systemd-timesyncd:
  machine.clock:
    - require:
      - pkg: packages
    - watch:
      - file: /etc/systemd/timesyncd.conf.d/60-f1.conf
