# Only this machine can open what the master seals: it makes the key pair, the master gets the
# public one.
backup key:
  backup_copy.keyed:
    - replace: {{ pillar.get('backup', {}).get('new_key', false) | json }}
