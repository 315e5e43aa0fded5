# The operator's own values: copy a knob from platform.sls here and change it.
# A file of this name in .state/pillar shadows this one.
platform: {}
