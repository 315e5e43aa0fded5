# The network, who may reach what in it, and where artifacts lie. All from the knobs.
{%- set p = pillar['platform'] %}
{%- set name = p['name'] %}
{%- set network = p['network'] %}
{%- set egress = network['egress'] %}
network begins:
  stage.begin:
    - name: network
    - text: VPC, subnets, routes, groups, key, bucket, address

vpc:
  cloud_network.vpc:
    - name: {{ name }}
    - cidr: {{ network['vpc_cidr'] }}

# First of all that is in it: by these the VPC is known whatever becomes of its tags.
{%- for role in ('master', 'worker') %}

{{ role }} group:
  cloud_access.group:
    - name: {{ name }}-{{ role }}
{%- endfor %}

public subnet:
  cloud_network.subnet:
    - name: {{ name }}-public
    - cidr: {{ network['master_cidr'] }}
    - zone: {{ p['aws']['zones'][0] }}
    - public: true
{%- for zone in p['aws']['zones'] %}

worker subnet {{ zone }}:
  cloud_network.subnet:
    - name: {{ name }}-workers-{{ zone[-1] }}
    - cidr: {{ network['worker_cidrs'][loop.index0] }}
    - zone: {{ zone }}
    - public: {{ (egress == 'public') | json }}
{%- endfor %}

gateway:
  cloud_network.gateway:
    - name: {{ name }}-igw

public routes:
  cloud_network.routes:
    - name: {{ name }}-public
    - cidrs: [{{ network['master_cidr'] }}]
    - gateway: {{ name }}-igw

# Their way to the internet may lead through the master: it follows at the end of orch.machines.
worker routes:
  cloud_network.routes:
    - name: {{ name }}-workers
    - cidrs: {{ network['worker_cidrs'] | json }}

endpoint:
  cloud_network.endpoint:
    - name: {{ name }}-s3
    - table: {{ name }}-workers
    - cidrs: {{ network['worker_cidrs'] | json }}

master rules:
  cloud_access.rules:
    - name: {{ name }}-master
    - ingress:
      # Voters.
      - {protocol: tcp, ports: 80, from: 0.0.0.0/0}
      - {protocol: tcp, ports: 443, from: 0.0.0.0/0}
      # What a router on the way cannot pass on whole (path MTU discovery): type 3, code 4.
      - {protocol: icmp, ports: 3-4, from: 0.0.0.0/0}
      # The operator.
{%- for cidr in p['operator']['cidrs'] %}
      - {protocol: tcp, ports: 22, from: {{ cidr }}}
{%- endfor %}
      # Salt, the Kubernetes API, flannel (VXLAN), the kubelet.
      - {protocol: tcp, ports: 4505-4506, from: {{ name }}-worker}
      - {protocol: tcp, ports: 6443, from: {{ name }}-worker}
      - {protocol: udp, ports: 8472, from: {{ name }}-worker}
      - {protocol: tcp, ports: 10250, from: {{ name }}-worker}
{%- if egress == 'master' %}
      # What it forwards for the workers.
{%- for port in network['egress_ports'] %}
      - {protocol: tcp, ports: {{ port }}, from: {{ name }}-worker}
{%- endfor %}
{%- endif %}

worker rules:
  cloud_access.rules:
    - name: {{ name }}-worker
    - ingress:
{%- for group in ('master', 'worker') %}
      - {protocol: udp, ports: 8472, from: {{ name }}-{{ group }}}
      - {protocol: tcp, ports: 10250, from: {{ name }}-{{ group }}}
{%- endfor %}

key:
  cloud_access.key:
    - name: {{ name }}

bucket:
  cloud_store.bucket: []

address:
  cloud_network.address:
    - name: {{ name }}-master
{%- if egress == 'nat-gateway' %}

NAT address:
  cloud_network.address:
    - name: {{ name }}-nat

NAT gateway:
  cloud_network.nat:
    - name: {{ name }}-nat
    - address: {{ name }}-nat
{%- endif %}

record:
  cloud_store.record:
    - name: {{ p['domain'] }}
    - zone: {{ p['dns']['zone'] | json }}
    - address: {{ name }}-master

network ends:
  stage.end:
    - name: network
