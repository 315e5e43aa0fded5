# The lock: everything downloaded, by version and checksum.
versions:
  salt:
    version: '3008.3'
  k3s:
    version: v1.36.5+k3s1
    amd64:
      url: https://github.com/k3s-io/k3s/releases/download/v1.36.5%2Bk3s1/k3s
      sha256: d73847bcd3c5fccef0115b372e2f9a91f3032dc84bbf71518a4617565294d313
