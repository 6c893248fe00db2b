"""A pinnace.yaml in which every field is used."""

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMWEfb8C5pFfsjvT5ZYuzTxyYAPq+A6YjMBDd0R1QqVu me@laptop"

WHOLE = f"""\
hostname: Kitchen
role: server
network:
  eth0:
    address: [192.168.1.20/24, "2001:db8::20/64"]
    gateway: [192.168.1.1, "fe80::1"]
    dns: [192.168.1.1, 2001:db8::1]
    search: lan
    mtu: 1400
    vlans:
      10:
      20: {{address: 10.0.20.2/24}}
  DC-A6-32-01-02-03: {{dhcp: true}}
  default: {{ipv6: false}}
wifi:
  country: NO
  networks:
  - {{ssid: home, psk: 00012345, priority: 5}}
  - {{ssid: café, open: yes, hidden: true}}
ssh:
  keys: {KEY}
token: correct-horse
timeServers: [192.168.1.1, pool.ntp.org]
timeZone: Europe/Berlin
manifests:
- apps/web.yaml
- apiVersion: v1
  kind: Namespace
  metadata: {{name: web, labels: {{since: 2024-01-01, on: "yes"}}}}
- |
  apiVersion: v1
  kind: ConfigMap
  metadata:
    name: notes
registries:
  mirrors: {{docker.io: {{endpoint: ["https://mirror.lan:5000"]}}}}
  configs: {{"mirror.lan:5000": {{auth: {{username: me, password: geheim}}}}}}
nodeLabels: {{example.com/room: kitchen, gpu: }}
nodeTaints: ["key=value:NoSchedule", {{key: only, effect: NoExecute}}]
disable: traefik
config:
  max-pods: 50
  tls-san: [node.example.com, 10.0.0.1]
usbUpdates: false
console: {{getty: true}}
watchdog: 2 min
"""
