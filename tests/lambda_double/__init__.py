"""A Lambda of the tests' own: real runtimes in real processes, one invocation at a time in each, as Lambda has them.

`python -m tests.lambda_double` listens where AWS_ENDPOINT_URL may point. Function `flo` is AWS's emulator with AWS's
runtime for Python; `flo-stream` is our own runtime behind a Runtime API of this program's, as the emulator has no
stream. Read `service.py` for the routes.
"""
