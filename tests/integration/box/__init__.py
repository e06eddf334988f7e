"""The namespace sandbox as it is: real boxes, made each of the ways. `boxes.py` opens them and looks for leftovers."""
