# A voter's request through the domain is counted in Redis.
proof begins:
  stage.begin:
    - name: proof
    - text: one vote through the domain, counted and withdrawn

a vote is counted:
  road.proved: []

proof ends:
  stage.end:
    - name: proof
