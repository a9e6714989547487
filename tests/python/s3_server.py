"""A server that speaks S3 (moto), with an empty bucket; prints its port when it is ready.

    s3_server.py [PORT]

It ends when its standard input does, and forgets all that it held.
"""

import sys

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]) if sys.argv[1:] else 0, verbose=False)
server.start()
_, port = server.get_host_and_port()
client = boto3.client(
    "s3",
    endpoint_url=f"http://127.0.0.1:{port}",
    region_name="us-east-1",
    aws_access_key_id="somebody",
    aws_secret_access_key="secret",
)
client.create_bucket(Bucket="bucket")
print(port, flush=True)
sys.stdin.read()
