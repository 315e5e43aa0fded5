# What machines fetch: the Salt environment by its hash, the app's image by its digest.
artifacts begins:
  stage.begin:
    - name: artifacts
    - text: the machines' Salt environment, the app's image

salt environment:
  cloud_store.environment_published: []

app image:
  road.imaged: []

artifacts ends:
  stage.end:
    - name: artifacts
