# Who gets in: a key of `admin`, and nobody by a password. A drop-in, read before the image's own:
# sshd takes the first value it finds. Tested before it takes its place, and by the unit's reload
# once more, with all the rest; connections stay.
include:
  - base.packages

/etc/ssh/sshd_config.d/10-f1.conf:
  file.managed:
    - mode: '0644'
    - makedirs: true
    - check_cmd: /usr/sbin/sshd -t -f
    - contents: |
        PermitRootLogin no
        PasswordAuthentication no
        KbdInteractiveAuthentication no
        PermitEmptyPasswords no
        HostbasedAuthentication no
        MaxAuthTries 4
        MaxSessions 10
        MaxStartups 10:30:60
        LoginGraceTime 30
        ClientAliveInterval 60
        ClientAliveCountMax 5
        X11Forwarding no
        AllowAgentForwarding no
        PermitUserEnvironment no
        # One kind of host key, which every machine announces at its birth.
        HostKey /etc/ssh/ssh_host_ed25519_key
        PubkeyAcceptedAlgorithms ssh-ed25519,sk-ssh-ed25519@openssh.com
        KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org
        Ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com
        MACs hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com
    - require:
      - pkg: packages

ssh:
  service.running:
    - enable: true
    - reload: true
    - watch:
      - file: /etc/ssh/sshd_config.d/10-f1.conf
