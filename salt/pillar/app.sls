# The running image of the vote app. `up` writes its twin in .state/pillar,
# which shadows this one, once the registry has given the digest back.
platform:
  app:
    digest: null
