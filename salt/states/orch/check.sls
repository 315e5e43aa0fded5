# Nothing is touched before everything that can be known to be wrong has been said.
check begins:
  stage.begin:
    - name: check
    - text: knobs, lock, programs

everything is right:
  road.checked: []

check ends:
  stage.end:
    - name: check
