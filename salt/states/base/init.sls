# What every machine needs, whatever its role. Each part says what it is for; the reverse of all
# is `base.absent`.
include:
  - base.packages
  - base.kernel
  - base.time
  - base.journal
  - base.upgrades
  - base.ssh
