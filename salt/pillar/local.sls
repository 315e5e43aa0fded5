# What is particular to one cloud: endpoints, where artifacts come from. AWS needs nothing here.
# A file of this name in .state/pillar shadows this one; it wins over site.sls.
platform: {}
