# On the master: what a restore has taken down is not brought up beside it.
no restore is half done:
  backup.settled:
    - failhard: true
