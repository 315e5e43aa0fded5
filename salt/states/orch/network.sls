# The network, who may reach what in it, and where artifacts lie. All from the knobs.
{%- set p = pillar['platform'] %}
{%- set name = p['name'] %}
network begins:
  stage.begin:
    - name: network
    - text: VPC, subnet, groups, key, bucket, address

vpc:
  cloud_network.vpc:
    - name: {{ name }}
    - cidr: {{ p['network']['vpc_cidr'] }}

subnet:
  cloud_network.subnet:
    - name: {{ name }}-public
    - vpc: {{ name }}
    - cidr: {{ p['network']['master_cidr'] }}
    - zone: {{ p['aws']['zones'][0] }}

gateway:
  cloud_network.gateway:
    - name: {{ name }}-igw
    - vpc: {{ name }}

routes:
  cloud_network.routes:
    - name: {{ name }}-rt
    - vpc: {{ name }}
    - gateway: {{ name }}-igw
    - subnet: {{ name }}-public

master group:
  cloud_access.group:
    - name: {{ name }}-master
    - vpc: {{ name }}
    - text: the master, which voters reach

worker group:
  cloud_access.group:
    - name: {{ name }}-worker
    - vpc: {{ name }}
    - text: workers, which nobody reaches from the internet

master rules:
  cloud_access.rules:
    - name: {{ name }}-master
    - ingress:
      # Voters.
      - {protocol: tcp, ports: 80, from: 0.0.0.0/0}
      - {protocol: tcp, ports: 443, from: 0.0.0.0/0}
      # The operator.
{%- for cidr in p['operator']['cidrs'] %}
      - {protocol: tcp, ports: 22, from: {{ cidr }}}
{%- endfor %}
      # Salt, the Kubernetes API, flannel (VXLAN), the kubelet.
      - {protocol: tcp, ports: 4505-4506, from: {{ name }}-worker}
      - {protocol: tcp, ports: 6443, from: {{ name }}-worker}
      - {protocol: udp, ports: 8472, from: {{ name }}-worker}
      - {protocol: tcp, ports: 10250, from: {{ name }}-worker}

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

record:
  cloud_store.record:
    - name: {{ p['domain'] }}
    - zone: {{ p['dns']['zone'] | json }}
    - address: {{ name }}-master

network ends:
  stage.end:
    - name: network
