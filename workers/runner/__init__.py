"""The engine as a program: runs a flow file here and now, without a server. `protocol.py` says what it prints."""
