"""Tokens: their forms, and the first contact against a real TLS server."""

import base64
import datetime
import hashlib
import http.server
import ipaddress
import json
import re
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lab.k3s import join, tokens
from lab.k3s.supervisor import Supervisor, TimedOut

NETWORK = {"cluster_cidr": "10.42.0.0/16"}
SECRET = "the-secret"
LOOPBACK = (x509.IPAddress(ipaddress.ip_address("127.0.0.1")),)


def test_full_form_is_k3s_own():
    ca = b"-----BEGIN CERTIFICATE-----\n"
    text = tokens.full(ca, "server", SECRET)
    assert text == f"K10{hashlib.sha256(ca).hexdigest()}::server:{SECRET}"
    assert tokens.parse(text + "\n") == tokens.Token(SECRET, "server", tokens.ca_hash(ca))


def test_short_forms():
    assert tokens.parse("abc") == tokens.Token("abc")
    assert tokens.parse("node:a:b") == tokens.Token("a:b", "node")


@pytest.mark.parametrize("text", ["", "K10abc", "K10abc::node:x", f"K10{'0' * 64}::node:", "a b"])
def test_malformed_tokens_are_refused_unseen(text):
    with pytest.raises(tokens.TokenError) as caught:
        tokens.parse(text)
    assert not text or text not in str(caught.value)


def test_bootstrap_token_has_kubernetes_form_and_differs_by_secret():
    ident, secret = tokens.bootstrap(SECRET)
    assert re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", f"{ident}.{secret}")
    assert tokens.bootstrap("other")[0] != ident


def test_token_file_is_awaited(tmp_path):
    path = tmp_path / "token"
    said: list[str] = []

    def pause(_):
        path.write_text("late\n")

    assert tokens.read_file(path, said.append, pause=pause) == "late"
    assert said == [f"waiting for the token file {path} to be available"]
    path.write_text("")
    with pytest.raises(tokens.TokenError, match="is empty"):
        tokens.read_file(path, said.append)
    with pytest.raises(tokens.TokenError, match="waited 0 s for the token file"):
        tokens.read_file(tmp_path / "none", said.append, deadline=0)


def certificate(name, issuer=None, issuer_key=None, names=()):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), False)
    return builder.sign(issuer_key or key, hashes.SHA256()), key


def pem(cert):
    return cert.public_bytes(serialization.Encoding.PEM)


class Server:
    """A server that shows its CA and knows one secret."""

    def __init__(self, folder, names, shown_ca=None):
        ca, ca_key = certificate("ca")
        cert, key = certificate("server", ca, ca_key, names)
        self.ca = pem(ca)
        self.seen: list[str | None] = []
        (folder / "cert").write_bytes(pem(cert))
        (folder / "key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        valid = f"Basic {base64.b64encode(f'node:{SECRET}'.encode()).decode()}"
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                given = self.headers.get("Authorization")
                outer.seen.append(given)
                known = self.path == "/cacerts" or (self.path, given) == ("/v1-k3s/config", valid)
                body = json.dumps(NETWORK if known else {"message": "not authorized"}).encode()
                self.send_response(200 if known else 401)
                self.end_headers()
                self.wfile.write((shown_ca or outer.ca) if self.path == "/cacerts" else body)

            def log_message(self, *_):
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(folder / "cert", folder / "key")
        self.httpd.socket = tls.wrap_socket(self.httpd.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.httpd.server_port}"
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()


@pytest.fixture
def serve(tmp_path, monkeypatch):
    monkeypatch.setattr(join, "WRONG_AFTER", 0)
    servers = []

    def make(names=LOOPBACK, shown_ca=None):
        servers.append(Server(tmp_path, names, shown_ca))
        return servers[-1]

    yield make
    for server in servers:
        server.httpd.shutdown()
        server.httpd.server_close()


def verify(tmp_path, server, text):
    return join.verify(Supervisor(tmp_path), server.url, tokens.parse(text))


def test_full_and_short_tokens_are_accepted(tmp_path, serve):
    server = serve()
    for text in (tokens.full(server.ca, "node", SECRET), f"node:{SECRET}", SECRET):
        cluster = verify(tmp_path, server, text)
        assert (cluster.ca, cluster.network) == (server.ca, NETWORK)


def test_other_ca_is_refused_before_any_secret_is_shown(tmp_path, serve):
    server = serve()
    with pytest.raises(join.JoinRefused, match="token CA hash does not match the Cluster CA"):
        verify(tmp_path, server, f"K10{'0' * 64}::node:{SECRET}")
    assert server.seen == [None]


def test_server_that_shows_another_ones_ca_gets_no_secret(tmp_path, serve):
    stolen = pem(certificate("real ca")[0])
    server = serve(shown_ca=stolen)
    with pytest.raises(join.JoinRefused, match="is not trusted"):
        verify(tmp_path, server, tokens.full(stolen, "node", SECRET))
    assert server.seen == [None]


def test_name_outside_the_certificate_is_explained(tmp_path, serve):
    server = serve(names=(x509.DNSName("other.test"),))
    with pytest.raises(join.JoinRefused, match="among tls-san"):
        verify(tmp_path, server, SECRET)


def test_wrong_secret_is_refused(tmp_path, serve):
    server = serve()
    with pytest.raises(join.JoinRefused, match="401 Unauthorized: its secret is not") as caught:
        verify(tmp_path, server, tokens.full(server.ca, "node", "guess"))
    assert "guess" not in str(caught.value)


def test_absent_server_is_awaited_until_the_deadline(tmp_path, monkeypatch):
    monkeypatch.setattr(join, "SERVER_DEADLINE", 0)
    with pytest.raises(TimedOut, match=r"waited 0 s for the server .*refused"):
        join.verify(Supervisor(tmp_path), "https://127.0.0.1:9", tokens.parse(SECRET))
