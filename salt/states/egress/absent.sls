# The reverse of `egress`: the master forwards nothing for the workers. What the kernel has been
# told stays until the next boot; other states use it as well.
f1-egress:
  service.dead:
    - enable: false

/etc/systemd/system/f1-egress.service:
  file.absent:
    - require:
      - service: f1-egress

/etc/f1/egress.nft:
  file.absent:
    - require:
      - service: f1-egress

/etc/sysctl.d/60-f1-egress.conf:
  file.absent: []
