# The workers' way out when it leads through the master: what of theirs it forwards, and in whose
# name. K3s has tables of its own; this one is alone in its own and accepts whatever is not the
# workers' own traffic to the outside.
{%- from 'egress/map.jinja' import devices, table with context %}
include:
  - base

nftables:
  pkg.installed:
    # Asked of the file: the list of all packages takes a second.
    - creates: /usr/sbin/nft

# A worker is not to be told of a shorter way that it does not have.
{%- for device in ['all'] + devices %}

net.ipv4.conf.{{ device }}.send_redirects:
  sysctl.present:
    - value: 0
    - config: /etc/sysctl.d/60-f1-egress.conf
    - require_in:
      - service: f1-egress
{%- endfor %}

/etc/f1/egress.nft:
  file.managed:
    - makedirs: true
    - mode: '0644'
    - contents: {{ table | json }}

# nftables.service, where it is used, begins by removing all that is there.
/etc/systemd/system/f1-egress.service:
  file.managed:
    - mode: '0644'
    - contents: |
        [Unit]
        Description=What the master forwards for the workers
        After=nftables.service
        Before=k3s.service

        [Service]
        Type=oneshot
        RemainAfterExit=yes
        ExecStart=/usr/sbin/nft -f /etc/f1/egress.nft
        ExecStop=-/usr/sbin/nft delete table ip f1_egress

        [Install]
        WantedBy=multi-user.target

f1-egress:
  service.running:
    - enable: true
    - require:
      - pkg: nftables
      - machine: /etc/sysctl.d/60-f1.conf
    - watch:
      - file: /etc/f1/egress.nft
      - file: /etc/systemd/system/f1-egress.service

# The unit has done its work once; its table may have been removed since.
the table of f1-egress:
  cmd.run:
    - name: systemctl restart f1-egress.service
    - unless: /usr/sbin/nft list table ip f1_egress
    - require:
      - service: f1-egress
