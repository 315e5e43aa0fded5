# Nothing is touched before everything that can be known to be wrong has been said.
check begins:
  stage.begin:
    - name: check
    - text: knobs, lock, programs

one at a time:
  road.alone:
    - name: orch.up

everything is right:
  road.checked: []

check ends:
  stage.end:
    - name: check
