# The reverse of `orch.up`: nothing that it made in the cloud is left. For good; so it wants the name:
#   salt-run state.orchestrate orch.down pillar='{"confirm": "f1"}'
# A plan (`test=True`) wants none. What holds something goes before it; interrupted, run it again.
{%- set p = pillar['platform'] %}
{%- set name = p['name'] %}
removal begins:
  stage.begin:
    - name: removal
    - text: address, machines, network, key, bucket

one at a time:
  road.alone:
    - name: orch.down

may be removed:
  cloud_removal.allowed:
    - name: {{ name }}
    - confirm: {{ pillar.get('confirm') | json }}
    - require:
      - road: one at a time

{%- macro only_if_allowed() %}
    - require:
      - cloud_removal: may be removed
{%- endmacro %}

# While the address is known to be ours: one without tags is so by the machine that has it.
record:
  cloud_store.record_absent:
    - name: {{ p['domain'] }}
    - zone: {{ p['dns']['zone'] | json }}
    - address: {{ name }}-master
{{- only_if_allowed() }}

address:
  cloud_network.address_absent:
    - name: {{ name }}-master
{{- only_if_allowed() }}

machines:
  cloud_machines.absent:
    - name: {{ name }}
{{- only_if_allowed() }}

# They hold their subnets and groups.
interfaces:
  cloud_removal.interfaces_absent:
    - name: {{ name }}
{{- only_if_allowed() }}

NAT gateway:
  cloud_network.nat_absent:
    - name: {{ name }}-nat
{{- only_if_allowed() }}

NAT address:
  cloud_network.address_absent:
    - name: {{ name }}-nat
{{- only_if_allowed() }}

endpoint:
  cloud_network.endpoint_absent:
    - name: {{ name }}-s3
{{- only_if_allowed() }}
{%- for table, cidrs in {'public': [p['network']['master_cidr']], 'workers': p['network']['worker_cidrs']}.items() %}

{{ table }} routes:
  cloud_network.routes_absent:
    - name: {{ name }}-{{ table }}
    - cidrs: {{ cidrs | json }}
{{- only_if_allowed() }}
{%- endfor %}

gateway:
  cloud_network.gateway_absent:
    - name: {{ name }}-igw
{{- only_if_allowed() }}

subnets:
  cloud_network.subnets_absent:
    - name: {{ name }}
{{- only_if_allowed() }}

# Groups name each other: no group can go before all rules have. They are the last to go but the
# VPC, which is known by them.
{%- for group in ('master', 'worker') %}

{{ group }} rules:
  cloud_access.rules_absent:
    - name: {{ name }}-{{ group }}
{{- only_if_allowed() }}
{%- endfor %}
{%- for group in ('master', 'worker') %}

{{ group }} group:
  cloud_access.group_absent:
    - name: {{ name }}-{{ group }}
{{- only_if_allowed() }}
{%- endfor %}

vpc:
  cloud_network.vpc_absent:
    - name: {{ name }}
{{- only_if_allowed() }}

key:
  cloud_access.key_absent:
    - name: {{ name }}
{{- only_if_allowed() }}

bucket:
  cloud_store.bucket_absent:
    - name: bucket
{{- only_if_allowed() }}

removal ends:
  stage.end:
    - name: removal
