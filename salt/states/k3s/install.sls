# The binary and the images that it needs, as locked, and the folders that hold secrets.
{%- from 'k3s/map.jinja' import k3s with context %}
include:
  - base.kernel

/etc/rancher/k3s:
  file.directory:
    - mode: '0700'
    - makedirs: true

/var/lib/rancher/k3s/agent/images:
  file.directory:
    - mode: '0700'
    - makedirs: true

/var/lib/rancher/k3s/agent/images/{{ k3s.images_file }}:
  artifact.fetched:
    - url: {{ k3s.images.url | json }}
    - sha256: {{ k3s.images.sha256 }}
    - require:
      - file: /var/lib/rancher/k3s/agent/images

/usr/local/bin/k3s:
  artifact.fetched:
    - url: {{ k3s.binary.url | json }}
    - sha256: {{ k3s.binary.sha256 }}
    - mode: '0755'

/etc/rancher/k3s/registries.yaml:
  file.serialize:
    - serializer: yaml
    - dataset: {mirrors: {{ k3s.mirrors | json }}}
    - mode: '0600'
    - show_changes: false
    - require:
      - file: /etc/rancher/k3s
