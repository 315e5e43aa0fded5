# What every machine needs, whatever its role. K3s loads its kernel modules by itself and says so
# if it cannot. systemd-sysctl skips what a machine does not let it write; only the outcome counts.
/etc/sysctl.d/60-f1.conf:
  file.managed:
    - contents: net.ipv4.ip_forward = 1
    - mode: '0644'

packets are forwarded:
  cmd.run:
    - name: systemctl restart systemd-sysctl.service; grep -qx 1 /proc/sys/net/ipv4/ip_forward
    - unless: grep -qx 1 /proc/sys/net/ipv4/ip_forward
    - require:
      - file: /etc/sysctl.d/60-f1.conf
