# One master and the workers, side by side; each brings up its own Salt and makes itself known.
{%- set p = pillar['platform'] %}
{%- set name = p['name'] %}
machines begins:
  stage.begin:
    - name: machines
    - text: one master, {{ pillar['platform']['workers']['count'] }} workers

machines:
  cloud_machines.present: []

# Only now is there a master to lead through.
egress:
  cloud_network.egress:
    - name: {{ name }}-workers
    - cidrs: {{ p['network']['worker_cidrs'] | json }}
{%- if p['network']['egress'] != 'nat-gateway' %}

# Nothing leads there any more.
NAT gateway:
  cloud_network.nat_absent:
    - name: {{ name }}-nat
    - require:
      - cloud_network: egress

NAT address:
  cloud_network.address_absent:
    - name: {{ name }}-nat
    - require:
      - cloud_network: NAT gateway
{%- endif %}

machines ends:
  stage.end:
    - name: machines
