"""Tries to talk to a cloud without what it asks for: stranger.py HOST PORT. Fails if anything but a refusal comes back."""

import socket
import ssl
import sys

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def refused(host, port, wrap):
    """How the cloud ends the conversation; none if it does not."""
    with socket.create_connection((host, port), timeout=10) as bare:
        try:
            stream = wrap(bare)
            stream.sendall(PREFACE)
            # A server's settings would be the answer of HTTP/2.
            while data := stream.recv(4096):
                if wrap is plain and not data.startswith(b"\x15\x03"):
                    return None
            return "closed"
        except ssl.SSLError as error:
            return error.reason
        except ConnectionError as error:
            return type(error).__name__


def plain(bare):
    return bare


def without_certificate(bare):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(bare, server_hostname="cloud")


def old(bare):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context.wrap_socket(bare, server_hostname="cloud")


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    for name, wrap, expected in [
        ("without TLS", plain, None),
        ("without a certificate", without_certificate, "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        ("with TLS 1.2", old, "TLSV1_ALERT_PROTOCOL_VERSION"),
    ]:
        how = refused(host, port, wrap)
        print(f"{name}: {how}")
        if how is None or (expected and how != expected):
            sys.exit(f"{name}: expected {expected or 'a refusal'}")


main()
