# Debian's security updates, and nothing else, come by themselves. A boot that one of them asks for
# happens in the window of `platform.maintenance`, if the operator allows it there.
{%- from 'base/map.jinja' import maintenance with context %}
include:
  - base.packages

/etc/apt/apt.conf.d/60f1-unattended-upgrades:
  file.managed:
    - mode: '0644'
    - contents: |
        // The list of Debian's own 50unattended-upgrades is longer.
        #clear Unattended-Upgrade::Origins-Pattern;
        Unattended-Upgrade::Origins-Pattern {
          "origin=Debian,codename=${distro_codename}-security,label=Debian-Security";
        };
        Unattended-Upgrade::Automatic-Reboot "{{ maintenance['reboot'] | string | lower }}";
        Unattended-Upgrade::Automatic-Reboot-WithUsers "true";
        Unattended-Upgrade::Automatic-Reboot-Time "{{ maintenance['time'] }}";
        APT::Periodic::Update-Package-Lists "1";
        APT::Periodic::Unattended-Upgrade "1";
    - require:
      - pkg: packages
