# What machines fetch: the Salt environment, by its hash.
artifacts begins:
  stage.begin:
    - name: artifacts
    - text: the machines' Salt environment

salt environment:
  cloud_store.environment_published: []

artifacts ends:
  stage.end:
    - name: artifacts
