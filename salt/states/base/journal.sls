# Logs are kept over a boot, and never fill the disk.
/etc/systemd/journald.conf.d/60-f1.conf:
  file.managed:
    - mode: '0644'
    - makedirs: true
    - contents: |
        [Journal]
        Storage=persistent
        SystemMaxUse=500M
        SystemKeepFree=1G
        SystemMaxFileSize=50M
        RuntimeMaxUse=50M

systemd-journald:
  service.running:
    - watch:
      - file: /etc/systemd/journald.conf.d/60-f1.conf
