# The reverse of `base`; what the kernel has been told stays until the next boot.
/etc/sysctl.d/60-f1.conf:
  file.absent: []
