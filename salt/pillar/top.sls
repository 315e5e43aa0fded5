# Every minion, and the operator's own Salt commands, see the same knobs.
# Merged in this order, recursively: a later file wins.
base:
  '*':
    - platform
    - versions
    - site
    - local
    - app
    - fleet
