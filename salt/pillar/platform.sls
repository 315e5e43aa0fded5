# The knobs. Their types, limits and meanings: platform.schema.json.
platform:
  name: f1
  domain: vote.example.org
  aliases: []
  aws:
    region: eu-west-3
    zones: [eu-west-3a, eu-west-3b]
    endpoint_url: null
    s3_endpoint_url: null
    bucket: null
  image:
    id: null
    owner: '136693071363'
    name: debian-12-amd64-*
  network:
    vpc_cidr: 10.20.0.0/16
    master_cidr: 10.20.1.0/24
    worker_cidrs: [10.20.2.0/24, 10.20.3.0/24]
    master_ip: 10.20.1.10
    egress: master
    egress_ports: [80, 443]
  operator:
    cidrs: []
  master:
    size: t3.medium
  workers:
    count: 2
    size: t3.small
    drain_seconds: 120
  dns:
    zone: null
  registry:
    push: null
    pull: null
    mirrors: {}
  app:
    replicas: 2
    challenge: attack
  proof:
    url: null
    verify_tls: true
  maintenance:
    reboot: false
    window: '03:30'
  upgrade:
    drain: false
  backup:
    every: daily
    keep: 14
    paths: []
    required: false
  heal:
    minutes: 30
