# The packages that the other parts configure, and those that K3s and its pods lean on. By name:
# what is there stays at its version until Debian's security updates (`base.upgrades`) move it.
packages:
  pkg.installed:
    - pkgs:
      - ca-certificates
      - conntrack
      - iptables
      - openssh-server
      - sudo
      - systemd-timesyncd
      - unattended-upgrades
