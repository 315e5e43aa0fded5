# The reverse of `platform`: the cluster runs nothing of ours. The votes go with it.
/var/lib/f1/render:
  kube.absent: []

the overlay:
  file.absent:
    - name: /var/lib/f1/render
    - require:
      - kube: /var/lib/f1/render
