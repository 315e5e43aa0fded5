# One master and the workers, side by side; each brings up its own Salt and makes itself known.
machines begins:
  stage.begin:
    - name: machines
    - text: one master, {{ pillar['platform']['workers']['count'] }} workers

machines:
  cloud_machines.present: []

machines ends:
  stage.end:
    - name: machines
