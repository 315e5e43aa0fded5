# What every machine needs, whatever its role. K3s loads its kernel modules by itself and says so
# if it cannot. Nothing is written to a kernel that forwards already: not every machine lets us.
net.ipv4.ip_forward:
  sysctl.present:
    - value: 1
    - config: /etc/sysctl.d/60-f1.conf
