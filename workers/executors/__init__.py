"""What a claimed run is handed to. Read `base.py` for the port, `choose.py` for which one a run gets."""
