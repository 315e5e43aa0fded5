# The reverse of `platform`: the cluster runs nothing of ours. The votes go with it.
nothing of k8s is left:
  kube.absent:
    - name: /var/lib/f1/render

/var/lib/f1/render:
  file.absent:
    - require:
      - kube: nothing of k8s is left
