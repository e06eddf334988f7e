"""The rig of `scripts/chaos`: a Flo on real servers, a load, what goes wrong, the judge. Read `rig.py` first."""
