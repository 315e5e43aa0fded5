# The reverse of `base`, the last part first: the machine is set as its image had it. Packages
# stay, since nobody can tell which of them the image brought; what the kernel has been told stays
# until the next boot.
/etc/ssh/sshd_config.d/10-f1.conf:
  file.absent: []

ssh:
  service.running:
    - reload: true
    - watch:
      - file: /etc/ssh/sshd_config.d/10-f1.conf

/etc/apt/apt.conf.d/60f1-unattended-upgrades:
  file.absent: []

/etc/systemd/journald.conf.d/60-f1.conf:
  file.absent: []

systemd-journald:
  service.running:
    - watch:
      - file: /etc/systemd/journald.conf.d/60-f1.conf

/etc/systemd/timesyncd.conf.d/60-f1.conf:
  file.absent: []

systemd-timesyncd:
  machine.clock:
    - watch:
      - file: /etc/systemd/timesyncd.conf.d/60-f1.conf

/etc/sysctl.d/90-kubelet.conf:
  file.absent: []

/etc/sysctl.d/60-f1.conf:
  file.absent: []
