# On one machine, a part of cluster.rotate_certificates, which says when it began.
{{ 'k3s' if grains['id'] == pillar['fleet']['master'] else 'k3s-agent' }}:
  k3s.certificates_rotated:
    - before: {{ pillar.get('rotation', {}).get('began') | json }}

/var/lib/f1/metrics/k3s-certificates.prom:
  k3s.certificates_told: []
