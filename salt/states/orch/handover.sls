# The tree goes to the Salt master, which from here on owns the cluster.
cluster begins:
  stage.begin:
    - name: cluster
    - text: K3s on every machine, then what k8s/ says

tree on the master:
  road.pushed: []

cluster and platform:
  road.orchestrated:
    - sls: orch.cluster

cluster ends:
  stage.end:
    - name: cluster
